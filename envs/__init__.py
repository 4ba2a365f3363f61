"""CodeDance room: envs."""
