"""Analysis of policies: reward hacks, tool ablation, test-time scaling, code usage."""
