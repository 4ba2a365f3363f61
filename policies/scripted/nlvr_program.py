"""The oracle's program for NLVR statements: list the shapes of each box, then apply simple rules.

The rules cover counts of boxes and items, colours, shapes and towers' ends; other statements are
judged true, as more than half of them are. This is a baseline on real human language, not a parser
of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

INVENTORY = """\
import cv2, json
import numpy as np

pixels = np.array(input_image).astype(int)
colours = {"yellow": (255, 211, 0), "black": (0, 0, 0), "blue": (0, 153, 255)}
third = pixels.shape[1] / 3
items = []
for name, colour in colours.items():
    mask = (abs(pixels - colour).sum(2) < 120).astype("uint8")
    count, _, stats, centres = cv2.connectedComponentsWithStats(mask)
    for (x, y, w, h, area), (u, v) in zip(stats[1:].tolist(), centres[1:].tolist()):
        if area >= 20:
            fill = area / (w * h)
            shape = "square" if fill > 0.9 else "circle" if fill > 0.68 else "triangle"
            items.append([int(u // third), name, shape, round(u), round(v), w, h])
print(json.dumps(items))
"""

_WORDS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
}  # fmt: skip
_NUMBER = r"(?P<n>\d{1,9}|" + "|".join(_WORDS) + ")"
_ITEM = (
    r"(?P<colour>yellow|black|blue)?\s*"
    r"(?P<shape>squares?|circles?|triangles?|items?|objects?|blocks?)"
)


@dataclass(frozen=True, slots=True)
class Item:
    """One shape.

    Attributes:
        box: Box that it is in: 0, 1 or 2.
        colour: Name of its colour.
        shape: Name of its form.
        height: Vertical position of its centre, in pixels.
    """

    box: int
    colour: str
    shape: str
    height: float


def is_statement(question: str) -> bool:
    """Return whether a question asks to judge a statement about an image."""
    return "statement" in question.lower() and "true or false" in question.lower()


def judge(question: str, output: str) -> str:
    """Return ``true`` or ``false`` for the statement in a question, from the program's output."""
    try:
        rows = json.loads(output.strip() or "[]")
        items = [Item(int(r[0]), str(r[1]), str(r[2]), float(r[4])) for r in rows]
    except (ValueError, IndexError, TypeError):
        return "true"
    statement = question.rpartition("tatement:")[2].strip().lower().rstrip(".")
    boxes = [[item for item in items if item.box == index] for index in range(3)]
    for rule in (_tower_top, _boxes_with, _items):
        verdict = rule(statement, boxes)
        if verdict is not None:
            return "true" if verdict else "false"
    return "true"


def _tower_top(statement: str, boxes: Sequence[Sequence[Item]]) -> bool | None:
    found = re.search(
        r"(yellow|black|blue) block (?:at|as|on) (?:the|its) (top|base|bottom)", statement
    )
    if found is None:
        return None
    ends: list[Item] = []
    for box in boxes:
        towers = sorted(box, key=lambda item: item.height)
        if towers:
            ends.append(towers[0] if found[2] == "top" else towers[-1])
    return any(item.colour == found[1] for item in ends)


def _boxes_with(statement: str, boxes: Sequence[Sequence[Item]]) -> bool | None:
    """Judge «there is a box with N …» and «there are M boxes with N …»."""
    found = re.search(
        rf"(?:box|tower|square)(?:es|s)? with (?P<how>\w+ )?{_NUMBER} {_ITEM}", statement
    )
    if found is None:
        return None
    compare = _comparison(found["how"] or "")
    return any(compare(_count(box, found), _value(found["n"])) for box in boxes)


def _items(statement: str, boxes: Sequence[Sequence[Item]]) -> bool | None:
    """Judge «there is/are (at least, exactly) N …» over all boxes."""
    found = re.match(
        rf"there (?:is|are) (?P<how>at least |exactly |at most |only )?{_NUMBER} {_ITEM}", statement
    )
    if found is None:
        return None
    everything = [item for box in boxes for item in box]
    how = found["how"] or ("at least " if found["n"] in {"a", "an", "one"} else "")
    return _comparison(how)(_count(everything, found), _value(found["n"]))


def _count(items: Sequence[Item], found: re.Match[str]) -> int:
    shape = found["shape"].rstrip("s")
    return sum(
        found["colour"] in (None, item.colour) and shape in (item.shape, "item", "object", "block")
        for item in items
    )


def _value(number: str) -> int:
    return int(number) if number.isdigit() else _WORDS[number]


def _comparison(how: str) -> Callable[[int, int], bool]:
    if "least" in how:
        return int.__ge__
    if "most" in how:
        return int.__le__
    return int.__eq__
