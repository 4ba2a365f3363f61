"""Commands for evaluation and analysis: evaluate, report, view, probe, scale, attack-reward."""
