"""Runs model-written code behind walls: sessions, limits, backends."""

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
]
