"""Commands that train: run, curate, sft, grpo, plan."""
