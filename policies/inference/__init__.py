"""Inference: the engine, sampling, reply streams, and the client of OpenAI-compatible servers."""
