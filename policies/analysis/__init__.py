"""What a policy does with code: reward hacks, tool ablation, test-time scaling, code usage."""
