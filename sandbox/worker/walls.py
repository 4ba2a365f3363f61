"""Which walls stand around zygote and sessions, from the strongest that this machine offers."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from .session import SessionPlan


class Walls:
    """No walls at all: the worker of ``unsafe-subprocess``; stronger ones build on it."""

    name = "none"
    description = "no walls"

    def enter(self) -> None:
        """Do what must be done before the libraries load."""

    def seal(self) -> None:
        """Do what must be done after the libraries have loaded, before the first session."""

    def fork(self) -> int:
        """Fork a session; 0 in it, its process id in the zygote."""
        return os.fork()

    def raise_for_session(self, plan: SessionPlan) -> None:
        """Confine this session's process before any model code runs."""
        os.chdir(tempfile.mkdtemp(prefix="codedance-"))


def choose_walls(config: dict[str, Any]) -> Walls:
    """Pick the walls that the host asked for."""
    return Walls()
