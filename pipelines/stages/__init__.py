"""The stages as plain functions: curate, sft, grpo, evaluate, and what runs them."""
