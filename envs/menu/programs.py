"""The menu: code actions with arguments, and the text of each.

An action is four numbers, `MENU_ARGUMENTS`: the entry, and the colour, cell and number, of which
the entry reads at most one. Nothing here reads an image or an answer: an entry is converted to the
text that a policy would write, which the environment parses and runs like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..suites.nano.canvas import COLOURS
from ..suites.nano.measuring import COUNT, LARGEST, WHOLE, WIDTH
from ..suites.nano.reading import CROP, DRAW
from ..suites.nano.routes import SEARCH

CROP_CELL = """\
w, h = input_image.size
x, y = {column} * w // {grid}, {row} * h // {grid}
u, v = max(x + 1, ({column} + 1) * w // {grid}), max(y + 1, ({row} + 1) * h // {grid})
input_image.crop((x, y, u, v))
"""
ZOOM_CELL = """\
w, h = input_image.size
x, y = {column} * w // {grid}, {row} * h // {grid}
u, v = max(x + 1, ({column} + 1) * w // {grid}), max(y + 1, ({row} + 1) * h // {grid})
input_image.crop((x, y, u, v)).resize((w, h))
"""
_SEARCH = SEARCH.replace("{", "{{").replace("}", "}}")  # its braces are code, not placeholders

MENU_ARGUMENTS = ("entry", "colour", "cell", "number")
NUMBERS = 101
"""Number of values of the argument ``number``: 0 to 100."""
WORDS = ("yes", "no", "true", "false", *COLOURS, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""Options of ``answer_choice`` where the task has no choices."""

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the menu.

    Attributes:
        name: Name of the entry.
        does: Description of its effect.
        reads: Argument that it reads; None for none.
        program: Code with placeholders for the argument; None for an answer.
    """

    name: str
    does: str
    reads: Literal["colour", "cell", "number"] | None
    program: str | None = None


MENU: tuple[Entry, ...] = (
    Entry("crop_cell", "show a cell of the grid", "cell", CROP_CELL),
    Entry("zoom_cell", "show a cell as large as the picture", "cell", ZOOM_CELL),
    Entry("crop_colour", "show the box around all pixels of a colour", "colour", CROP),
    Entry("count_colour", "print how many connected pieces a colour has", "colour", COUNT),
    Entry("measure_width", "print a colour's width in tenths of the ruler's", "colour", WIDTH),
    Entry("draw_discs", "draw a disc at every pixel of a colour", "colour", DRAW),
    Entry("largest_area", "print the colour with most pixels", None, LARGEST),
    Entry("shortest_path", "print the steps from the green to the red cell", None, _SEARCH),
    Entry("answer_printed", "answer what the newest code printed last", None),
    Entry("answer_number", "answer the number", "number"),
    Entry("answer_choice", "answer the task's choice (or the menu's word) of the number", "number"),
)


def chosen_entries(names: Sequence[str] | None) -> tuple[Entry, ...]:
    """Return the entries with these names, in this order; the whole menu for None.

    Raises:
        ValueError: A name is unknown, or there are no names.
    """
    if names is None:
        return MENU
    known = {entry.name: entry for entry in MENU}
    if not names or any(name not in known for name in names):
        raise ValueError(f"entries must be some of {', '.join(known)}; got {list(names)}")
    return tuple(known[name] for name in names)


def menu_sizes(grid: int, entries: Sequence[Entry] = MENU) -> tuple[int, int, int, int]:
    """Return the number of values of each argument of an action, as in `MENU_ARGUMENTS`.

    An argument that none of the entries reads has one value.
    """
    read = {entry.reads for entry in entries}
    sizes = {"colour": len(COLOURS), "cell": grid * grid, "number": NUMBERS}
    colours, cells, numbers = (size if name in read else 1 for name, size in sizes.items())
    return len(entries), colours, cells, numbers


def menu_text(
    action: Sequence[int],
    *,
    grid: int,
    printed: str = "",
    choices: Sequence[str] = (),
    entries: Sequence[Entry] = MENU,
) -> str:
    """Return the text of an action.

    Args:
        action: One number per argument, as in `MENU_ARGUMENTS`.
        grid: Number of cells per row and per column.
        printed: Output of the newest code.
        choices: Options of the task.
        entries: Entries of the menu.
    """
    number_of_entry, number_of_colour, cell, number = (int(value) for value in action)
    entry = entries[number_of_entry]
    colour = list(COLOURS)[number_of_colour]
    if entry.program is None:
        answers = {
            "answer_printed": _last_line(printed),
            "answer_number": str(number),
            "answer_choice": _chosen(number, choices),
        }
        return f"<think>{entry.does}</think>\n<answer>{answers[entry.name]}</answer>"
    row, column = divmod(cell, grid)
    code = entry.program.format(
        colour=COLOURS[colour], row=row, column=column, grid=grid, picture=WHOLE
    )
    thought = {"colour": f": {colour}", "cell": f": row {row}, column {column}"}
    about = thought.get(entry.reads or "", "")
    return f"<think>{entry.does}{about}</think>\n<code>\n```python\n{code}```\n</code>"


def _chosen(number: int, choices: Sequence[str]) -> str:
    options = choices or WORDS
    return options[number % len(options)]


def _last_line(printed: str) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return lines[-1] if lines else UNKNOWN
