"""How replies are made: our engine, sampling, streams, and the client of OpenAI-like servers."""
