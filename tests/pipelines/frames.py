"""Frames of a call stack that belong to the package."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("sandbox", "envs", "policies", "pipelines")
MOST_FRAMES = 8
"""Maximum from a command's ``main``, or a flow's function, to a stage's function, inclusive."""


class Reached(Exception):  # noqa: N818 - not an error
    """The stage's function was called."""


def is_ours(filename):
    """Return whether a file belongs to one of the rooms."""
    path = Path(filename).resolve()
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ROOMS
