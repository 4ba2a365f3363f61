"""GRPO: groups, advantages, loss, update, and alarms about failing training."""
