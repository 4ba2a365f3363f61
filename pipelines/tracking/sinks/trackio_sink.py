"""Hugging Face's trackio: a run per stage run, in a SQLite file of this machine.

The file is in ``CODEDANCE_DIR/trackio``; trackio's own variables apply (``TRACKIO_DIR``,
``TRACKIO_SPACE_ID`` for a Space, ``TRACKIO_SERVER_URL`` for a server).
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

from .sink import Point, SinkRun, SinkStatus

FOLDER = "trackio"


class TrackioSink:
    """Writes a run through trackio's client, which writes in a thread of its own.

    Trackio raises no error for what it cannot write: it warns once, through Python's warnings. It
    writes every half second, which is little to lose where a process is killed.
    """

    keeps = True

    def __init__(self) -> None:
        self._trackio: Any = None
        self._run: Any = None

    def begin(self, run: SinkRun) -> str:
        """Begin a run, or continue the one with this name."""
        os.environ.setdefault("TRACKIO_DIR", str(run.root / FOLDER))  # read by the import
        with redirect_stdout(io.StringIO()):  # it prints on standard output
            self._trackio = import_module("trackio")
            self._run = self._trackio.init(
                project=run.project,
                name=run.id,
                group=run.group,
                config=dict(run.parameters),
                resume="allow",
                embed=False,
            )
        place = f"TRACKIO_DIR={os.environ['TRACKIO_DIR']}"
        return f"trackio: {place} trackio show --project {run.project}"

    def log(self, points: Sequence[Point]) -> None:
        """Hand points to the client."""
        for point in points:
            self._run.log(dict(point.values), step=point.step)

    def end(self, status: SinkStatus) -> None:
        """Write what is left; trackio has no status of a run."""
        with redirect_stdout(io.StringIO()):
            self._trackio.finish()
