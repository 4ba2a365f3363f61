"""The points of a run that a tool lacks, read from the run's folder.

How far a tool has got is recorded beside them, so that a resumed run goes on from there. A repeated
step is left out, as in MLflow: the first record of a step counts. So are the machine's metrics,
which the tools measure themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..lines import Line, LineReader
from ..metrics_file import FILE_NAME as METRICS_NAME
from ..tracker import FIGURES_NAME
from .sink import Point

FOLDER = "sinks"
"""Folder in a run's folder, with a file per tool: offsets of what it has."""
_OF_THE_MACHINE = "system/"


class PointReader:
    """Reads the points that a tool lacks.

    Attributes:
        sent: Number of points that the tool has.
        newest: Largest step among them; -1 where there are none.
    """

    def __init__(self, folder: Path, tool: str) -> None:
        self._state = folder / FOLDER / f"{tool}.json"
        state = self._read_state()
        self.sent: int = state.get("sent", 0)
        self.newest = -1
        self._last: dict[str, tuple[int, float]] = {}
        self._waiting: list[Point] = []
        self._readers: dict[str, LineReader] = {}
        for name in (METRICS_NAME, FIGURES_NAME):
            offset = int(state.get(name, 0))
            for line in LineReader(folder / name).read(offset):
                self._new_values(*_parts(line))
            self._readers[name] = LineReader(folder / name, offset)
        self.newest = max((step for step, _ in self._last.values()), default=-1)

    def read(self) -> list[Point]:
        """Return the points that the tool lacks, in order; they are returned until confirmed."""
        for line in self._lines():
            step, values = _parts(line)
            if new := self._new_values(step, values):
                index = self.sent + len(self._waiting)
                self._waiting.append(Point(index, step, new))
        return list(self._waiting)

    def confirm(self) -> None:
        """Record that the tool has all points that were read.

        Raises:
            OSError: The record cannot be written; it counts for this process only.
        """
        self.sent += len(self._waiting)
        self.newest = max([self.newest, *(point.step for point in self._waiting)])
        self._waiting.clear()
        offsets = {name: reader.offset for name, reader in self._readers.items()}
        self._state.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._state.with_suffix(".tmp")
        temporary.write_text(json.dumps({**offsets, "sent": self.sent}), encoding="utf-8")
        temporary.replace(self._state)

    def _lines(self) -> Iterator[Line]:
        for reader in self._readers.values():
            yield from reader.read()

    def _new_values(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Return the values that are not of a repeated step; a result without steps may change."""
        new: dict[str, float] = {}
        for name, value in values.items():
            last = self._last.get(name)
            is_changed = last is not None and step == last[0] == 0 and value != last[1]
            if last is None or step > last[0] or is_changed:
                new[name] = value
                self._last[name] = step, value
        return new

    def _read_state(self) -> dict[str, Any]:
        try:
            return json.loads(self._state.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # nothing was sent yet
            return {}


def _parts(line: Line) -> tuple[int, dict[str, float]]:
    """Return the step and the values of a line of either file."""
    values = line.get("values", line)
    kept = {
        name: float(value)
        for name, value in values.items()
        if name != "step" and not name.startswith(_OF_THE_MACHINE)
    }
    return int(line["step"]), kept
