"""The points of a run that a tool lacks, read from the run's folder.

How far a tool has got is recorded beside them, so that a resumed run goes on from there. A repeated
step is left out, as in MLflow: the first record of a step counts. So are the machine's metrics,
which the tools measure themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..lines import Line, LineReader, append_line, read_lines
from ..metrics_file import FILE_NAME as METRICS_NAME
from ..tracker import FIGURES_NAME
from .sink import Point

FOLDER = "sinks"
"""Folder in a run's folder, with a file per tool: a line for each time that it took points."""
_FILES = (METRICS_NAME, FIGURES_NAME)
_KEPT = "kept"
_OF_THE_MACHINE = "system/"


class PointReader:
    """Reads the points that a tool lacks.

    The record has the offset in each file up to which the tool took points, one line per time, so
    that a point has the same index when it is read again. What a tool took without keeping it, as
    W&B's client does until it ends, is returned again by the next reader.

    Attributes:
        sent: Number of points that the tool keeps.
        newest: Largest step among them; -1 where there are none.
    """

    def __init__(self, folder: Path, tool: str) -> None:
        self._record = folder / FOLDER / f"{tool}.jsonl"
        self._readers = {name: LineReader(folder / name) for name in _FILES}
        self._last: dict[str, tuple[int, float]] = {}
        self._waiting: list[Point] = []
        self._taken = 0
        self.sent, self.newest = 0, -1
        for taken in read_lines(self._record):
            self._read(taken)
            if taken[_KEPT]:
                self._keep()

    def read(self) -> list[Point]:
        """Return the points that the tool lacks, in order; they are returned until it has them."""
        self._read({})
        return self._waiting[self._taken :]

    def confirm(self, *, is_kept: bool) -> None:
        """Record that the tool took all points that were read.

        Args:
            is_kept: Whether it has them, and all before them, even if this process is killed.

        Raises:
            OSError: The record cannot be written.
        """
        offsets = {name: reader.offset for name, reader in self._readers.items()}
        append_line(self._record, {**offsets, _KEPT: is_kept})
        self._taken = len(self._waiting)
        if is_kept:
            self._keep()

    def again(self) -> None:
        """Return all points that the tool does not keep once more."""
        self._taken = 0

    def _keep(self) -> None:
        self.sent += len(self._waiting)
        self.newest = max([self.newest, *(point.step for point in self._waiting)])
        self._waiting.clear()
        self._taken = 0

    def _read(self, ends: Mapping[str, Any]) -> None:
        """Read the lines of each file up to an offset, by the file's name; else to the end."""
        for name, reader in self._readers.items():
            for line in reader.read(ends.get(name)):
                step, values = _parts(line)
                if new := self._new_values(step, values):
                    index = self.sent + len(self._waiting)
                    self._waiting.append(Point(index, step, new))

    def _new_values(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Return the values that are not of a repeated step; a result without steps may change."""
        new: dict[str, float] = {}
        for name, value in values.items():
            last = self._last.get(name)
            is_changed = last is not None and step == last[0] == 0 and value != last[1]
            if last is None or step > last[0] or is_changed:
                new[name] = value
                self._last[name] = step, value
        return new


def _parts(line: Line) -> tuple[int, dict[str, float]]:
    """Return the step and the values of a line of either file."""
    values = line.get("values", line)
    kept = {
        name: float(value)
        for name, value in values.items()
        if name != "step" and not name.startswith(_OF_THE_MACHINE)
    }
    return int(line["step"]), kept
