"""The module that verifiers loads as ``--env.taskset.id visual_code``."""

from codedance.policies.adapters.verifiers_taskset import (
    VisualCodeEnv,
    VisualCodeHarness,
    VisualCodeTaskset,
)

__all__ = ["VisualCodeEnv", "VisualCodeHarness", "VisualCodeTaskset"]
