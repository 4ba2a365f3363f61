"""Tasks from a file: one JSON object per line, with a question, its images and the answer.

Keys: ``question``, ``answer``, ``image`` or ``images`` (see `row_images`); and, optionally,
``id``, ``answer_type`` (text, integer, number, choice, boolean), ``options``, ``tolerance``
(relative, of a number), ``family``, ``split``, ``difficulty``, ``pass_rate``. Other keys are
ignored; null and NaN mean that a key is absent. Every line is checked when the file is opened, and
all invalid ones are reported together; images are decoded when a task is accessed.
"""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..grading import GradingError, check_gradable
from ..picture import PictureError, load_picture
from ..types import Difficulty, Task
from .base import Split, SuiteError
from .formats.bad_rows import BadImageError, bad_rows, shortened
from .formats.row_answers import read_row_answer
from .formats.row_images import ImageSource, image_sources
from .formats.row_values import check_values, read_row
from .formats.whole_characters import require_whole_characters

_MOST_DECODED = 500


class JsonlSuite:
    """The tasks of one file.

    A file in which no line names a split is used whole for either split: the user is then
    responsible for separating training and test data.

    Args:
        path: Path of the file.
        name: Name of the suite for `load_suite`.
        split: Split; lines of the other are left out, and lines without one belong to ``train``
            where other lines name theirs.

    Attributes:
        names_splits: Whether some line names its split.

    Raises:
        SuiteError: The file cannot be read, a line is not a task, or the split has no task.
    """

    def __init__(self, path: Path, *, name: str, split: Split) -> None:
        self.name = name
        self.split: Split = split
        self._path = path
        self._entries: list[tuple[Task, tuple[ImageSource, ...]]] = []
        self._lines: list[int] = []
        self._places: dict[str, int] = {}
        self._indices: dict[str, list[int]] = {}
        faults: list[tuple[int, str]] = []
        rows = _rows(path, faults)
        self.names_splits = any("split" in row for _, row in rows)
        absent = "train" if self.names_splits else split
        chosen = [(line, row) for line, row in rows if row.get("split", absent) == split]
        for line, row in chosen:
            try:
                check_values(row)
                self._add(_bare_task(row, line, name=name, split=split, path=path), row, line)
            except (SuiteError, GradingError) as error:
                faults.append((line, str(error)))
        if faults:
            raise bad_rows(path, faults + self._damaged())
        if not rows:
            raise SuiteError(f"{path} holds no task: it needs one JSON object per line")
        if not chosen:
            raise SuiteError(f"{path} holds no task of split {split!r}")

    @property
    def families(self) -> tuple[str, ...]:
        """Families in order of appearance."""
        return tuple(self._indices)

    def indices_of(self, family: str) -> Sequence[int]:
        """Return the indices of a family's tasks, in order, without reading images."""
        return self._indices.get(family, ())

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int, /) -> Task:
        """Return a task, its images decoded.

        Raises:
            BadImageError: An image is missing or damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} holds tasks 0 to {len(self) - 1}, got {index}")
        task, sources = self._entries[index]
        images: list[Image.Image] = []
        faults: list[PictureError] = []
        for source in sources:
            try:
                images.append(load_picture(source))
            except PictureError as error:
                faults.append(error)
        if faults:
            reason = "; ".join(shortened(str(error)) for error in faults)
            raise BadImageError(str(self._path), self._lines[index], reason) from faults[0]
        return replace(task, images=tuple(images))

    def task(self, task_id: str) -> Task:
        """Return the task with an id.

        Raises:
            KeyError: The file and split do not have it.
        """
        if task_id not in self._places:
            raise KeyError(f"no task {task_id!r} in {self.name}/{self.split}")
        return self[self._places[task_id]]

    def _add(self, task: Task, row: dict[str, Any], line: int) -> None:
        if task.id in self._places:
            first = self._lines[self._places[task.id]]
            raise SuiteError(
                f"the id {row.get('id', line)!r} occurs twice; ids must be unique (line {first})"
            )
        value = row["images"] if "images" in row else _required(row, "image")
        sources = image_sources(value, self._path.parent)
        check_gradable(task)
        self._places[task.id] = len(self._entries)
        self._indices.setdefault(task.family, []).append(len(self._entries))
        self._lines.append(line)
        self._entries.append((task, sources))

    def _damaged(self) -> list[tuple[int, str]]:
        """Decode the images of a file that is refused anyway, to report damaged ones too."""
        indices = range(min(len(self), _MOST_DECODED))
        return [fault for index in indices for fault in self._fault_of(index)]

    def _fault_of(self, index: int) -> list[tuple[int, str]]:
        try:
            self[index]
        except BadImageError as error:
            return [(error.line, error.reason)]
        return []


def picture_files(path: Path) -> list[Path]:
    """Return the image files that a task file names, each once, in order."""
    found: dict[Path, None] = {}
    for _, row in _rows(path, []):
        try:
            sources = image_sources(row.get("images", row.get("image")), path.parent)
        except SuiteError:  # reported when the suite is loaded
            continue
        found |= dict.fromkeys(source for source in sources if isinstance(source, Path))
    return list(found)


def _rows(path: Path, faults: list[tuple[int, str]]) -> list[tuple[int, dict[str, Any]]]:
    """Return the file's objects with their line numbers; invalid lines are added to ``faults``."""
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError:
        raise SuiteError(f"{path}: there is no such file") from None
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error})") from error
    rows: list[tuple[int, dict[str, Any]]] = []
    for line, encoded in enumerate(content.split(b"\n"), start=1):
        try:
            row = encoded.decode("utf-8")
        except UnicodeDecodeError as error:
            faults.append((line, f"not UTF-8 ({error.reason}, byte {error.start + 1})"))
            continue
        if not row.strip("\ufeff \t\r"):
            continue
        try:
            rows.append((line, read_row(row)))
        except SuiteError as error:
            faults.append((line, str(error)))
    return rows


def _bare_task(row: dict[str, Any], line: int, *, name: str, split: Split, path: Path) -> Task:
    """Return the task of a line, without its images."""
    require_whole_characters(row)
    title = path.parent.name if path.name == "data.jsonl" else path.stem
    _required(row, "answer")
    answer = read_row_answer(row)
    return Task(
        id=f"{title}/{row.get('id', line)}",
        suite=name,
        family=str(row.get("family") or title),
        split=split,
        question=str(_required(row, "question")),
        images=(),
        answer=answer.text,
        answer_kind=answer.kind,
        tolerance=_number(row, "tolerance") or 0.0,
        choices=answer.choices,
        difficulty=_difficulty(row),
        pass_rate=_number(row, "pass_rate"),
        provenance={"file": path.name, "line": str(line)},
    )


def _required(row: dict[str, Any], key: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    if row.get(key) is None:
        near = difflib.get_close_matches(key, row, n=1)
        hint = f"; is {near[0]!r} meant for it?" if near else ""
        raise SuiteError(f"there is no {key!r}{hint}")
    return row[key]


def _number(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SuiteError(f"{key!r} is a number from 0 to 1, got {value!r}")
    return float(value)


def _difficulty(row: dict[str, Any]) -> Difficulty:
    value = row.get("difficulty")
    if value is None:
        return Difficulty.MEDIUM
    if str(value) not in set(Difficulty):
        raise SuiteError(f"'difficulty' is one of {', '.join(Difficulty)}, got {value!r}")
    return Difficulty(value)
