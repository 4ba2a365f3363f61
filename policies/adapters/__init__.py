"""Adapters of the environment for other trainers: TRL, verifiers, OpenEnv, NeMo Gym, verl, SB3."""
