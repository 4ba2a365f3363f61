"""Commands that play an episode: ask and play."""
