"""GRPO: groups, advantages, the loss, the update, and alarms about a training that goes wrong."""
