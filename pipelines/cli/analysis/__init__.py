"""Commands that judge and show: evaluate, report, view, probe, scale, attack-reward."""
