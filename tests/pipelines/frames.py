"""Which frames of a call stack are the package's own."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("sandbox", "envs", "policies", "pipelines")
MOST_FRAMES = 8
"""From a command's ``main``, or a flow's function, to a stage's function, both counted."""


class Reached(Exception):  # noqa: N818 - no error of ours
    """The stage's function was called."""


def is_ours(filename):
    """Return whether code of one of the rooms stands in a file."""
    path = Path(filename).resolve()
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ROOMS
