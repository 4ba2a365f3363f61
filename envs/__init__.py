"""Tasks, the turn protocol, grading, rewards, and the Gymnasium environment over them.

Importing this room registers ``codedance/VisualCode-v0`` and its fixed-shape view,
``codedance/VisualCodeMenu-v0``; it loads gymnasium, numpy and pillow.
"""

import gymnasium

from .episode import Episode
from .grading import grade
from .picture import PictureError, load_picture
from .rewards.registry import register_reward_term, unregister_reward_term, with_terms
from .rewards.terms import score_group
from .running_accuracy import RunningAccuracy
from .suites import Item, Suite, SuiteError, load_suite, register_family
from .types import (
    Action,
    AnswerKind,
    Band,
    Ending,
    Message,
    Task,
    Tokens,
    Trajectory,
    Turn,
)
from .visual_code import EnvState, VisualCodeEnv

__all__ = [
    "Action",
    "AnswerKind",
    "Band",
    "Ending",
    "EnvState",
    "Episode",
    "Item",
    "Message",
    "PictureError",
    "RunningAccuracy",
    "Suite",
    "SuiteError",
    "Task",
    "Tokens",
    "Trajectory",
    "Turn",
    "VisualCodeEnv",
    "grade",
    "load_picture",
    "load_suite",
    "register_family",
    "register_reward_term",
    "score_group",
    "unregister_reward_term",
    "with_terms",
]

gymnasium.register(
    id="codedance/VisualCode-v0",
    entry_point="codedance.envs.visual_code:VisualCodeEnv",
    vector_entry_point="codedance.envs.vector:VisualCodeVectorEnv",
    # Both checks are the environment's own: it says itself when reset() is due.
    order_enforce=False,
    disable_env_checker=True,
)
gymnasium.register(
    id="codedance/VisualCodeMenu-v0",
    entry_point="codedance.envs.menu.env:VisualCodeMenuEnv",
    order_enforce=False,
    disable_env_checker=True,
)
