"""Runs model-written code behind walls: sessions, limits, backends."""

from .opening import open_sandbox
from .types import (
    DEFAULT_LIBRARIES,
    Execution,
    Limits,
    Outcome,
    Sandbox,
    SandboxError,
    Session,
    SessionState,
)

__all__ = [
    "DEFAULT_LIBRARIES",
    "Execution",
    "Limits",
    "Outcome",
    "Sandbox",
    "SandboxError",
    "Session",
    "SessionState",
    "open_sandbox",
]
