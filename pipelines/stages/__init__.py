"""The stages as plain functions: curate, sft, grpo and evaluate, with their helpers."""
