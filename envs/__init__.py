"""Tasks, turn protocol, grading, rewards, and the Gymnasium environments.

Importing this package registers ``codedance/VisualCode-v0`` and its fixed-shape view,
``codedance/VisualCodeMenu-v0``; it loads gymnasium, numpy and pillow.
"""

import gymnasium

from .rewards.registry import register_reward_term
from .suites.generated import Item, register_family
from .suites.loading import load_suite

__all__ = ["Item", "load_suite", "register_family", "register_reward_term"]

gymnasium.register(
    id="codedance/VisualCode-v0",
    entry_point="codedance.envs.visual_code:VisualCodeEnv",
    vector_entry_point="codedance.envs.vector:VisualCodeVectorEnv",
    # The environment performs both checks itself, including that of a missing reset().
    order_enforce=False,
    disable_env_checker=True,
)
gymnasium.register(
    id="codedance/VisualCodeMenu-v0",
    entry_point="codedance.envs.menu.env:VisualCodeMenuEnv",
    order_enforce=False,
    disable_env_checker=True,
)
