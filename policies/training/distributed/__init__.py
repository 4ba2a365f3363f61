"""Distributed training: shares of the batch, and sharded weights."""
