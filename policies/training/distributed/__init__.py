"""Training over several processes: shares of the batch, and sharded weights."""
