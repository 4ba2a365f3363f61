"""One parser for every policy's text: what it asks for, and what is wrong with its form.

Fenced code is cut out first, then thoughts, then tool responses that the policy made up, so that
nothing written inside them can act: there a tag is only text. Answers and the counts of tags are
read in what is left. The parser never raises, and its time is linear in the text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .types import Action

Interface = Literal["code", "box", "text"]
INTERFACES: tuple[Interface, ...] = ("code", "box", "text")

TOO_LONG_ANSWER = 1000
"""From this many characters on, an answer is a format fault."""

Span = tuple[int, int]

_OPENING = re.compile(r"(<code>\s*)?```[ \t]*([\w+.#-]*)[ \t]*\r?\n")
_CLOSING = re.compile(r"(?<=\n)[ \t]*```(?![\w`])|```(?=[ \t]*(?:[\r\n<]|\Z))")
_PYTHON = frozenset({"python", "python3", "py"})
_NUMBER = r"\s*(-?\d{1,7}(?:\.\d{1,7})?)\s*"
_FOUR_NUMBERS = re.compile(",".join([_NUMBER] * 4), re.ASCII)


@dataclass(frozen=True, slots=True)
class _Fence:
    """A fenced block: where it stands, what it holds, and whether ``<code>`` stands before it."""

    span: Span
    language: str
    body: str
    is_wrapped: bool
    is_closed: bool = True

    @property
    def is_python(self) -> bool:
        return self.language.lower() in _PYTHON

    @property
    def preference(self) -> int:
        """Low is taken first: in a code tag, then labelled, then bare."""
        return 0 if self.is_wrapped else 1 if self.is_python else 2


def parse_action(text: str, *, interface: Interface = "code") -> Action:
    """Read what a policy's text asks for: code, an answer, or neither (malformed).

    An answer ends the episode, so it goes before code in the same text; of several answers the
    first counts, and of several blocks the first.

    Args:
        text: One turn of the policy, any Unicode.
        interface: Which tool the policy has: ``code``, ``box`` (a crop, no more), ``text`` (none).

    >>> parse_action("<think>Easy.</think><answer>5</answer>")
    Action(kind='answer', content='5', format_fault=None)
    """
    visible, fences = _cut(text)
    fault = None
    if "<think>" in visible or "</think>" in visible:
        fault = "a think tag without its other half"
    opened, closed = visible.count("<answer>"), visible.count("</answer>")
    answers = list(_between(visible, "<answer>", "</answer>"))
    if answers:
        return _answer(visible, answers[0], fault, is_single=opened == closed == 1)
    if opened or closed:
        fault = fault or "an answer tag without its other half"
    if interface == "box":
        return _box(visible, fault)
    if interface == "text":
        return _malformed("no answer between <answer> and </answer>")
    return _code(fences, fault)


def _answer(visible: str, span: Span, fault: str | None, *, is_single: bool) -> Action:
    answer = visible[span[0] + len("<answer>") : span[1] - len("</answer>")]
    answer = answer.replace("\0", "").strip()
    if not is_single:
        fault = fault or "not exactly one answer"
    if len(answer) >= TOO_LONG_ANSWER:
        fault = fault or f"an answer of {len(answer)} characters"
    return Action("answer", answer, fault)


def _code(fences: Sequence[_Fence], fault: str | None) -> Action:
    if not fences:
        return _malformed("neither code in a python fence nor an answer")
    runnable = [fence for fence in fences if fence.is_python or not fence.language]
    if not runnable:
        return _malformed(f"the fence says {fences[0].language!r}, not python")
    first = min(runnable, key=lambda fence: fence.preference)
    if not first.is_closed:
        return _malformed("a code fence that is not closed")
    return Action("code", first.body, fault)


def _box(visible: str, fault: str | None) -> Action:
    span = next(_between(visible, "<box>", "</box>"), None)
    if span is None:
        return _malformed("neither a box nor an answer")
    inside = visible[span[0] + len("<box>") : span[1] - len("</box>")]
    numbers = _FOUR_NUMBERS.fullmatch(inside)
    if numbers is None:
        return _malformed("a box that is not four numbers: x1, y1, x2, y2")
    x1, y1, x2, y2 = (round(float(number)) for number in numbers.groups())
    return Action("code", crop_code(x1, y1, x2, y2), fault)


def _malformed(reason: str) -> Action:
    return Action("malformed", reason, format_fault=reason)


def crop_code(x1: int, y1: int, x2: int, y2: int) -> str:
    """Give the block that shows a crop of the question's picture, cut to its edges."""
    return (
        f"box = (max({x1}, 0), max({y1}, 0), "
        f"min({x2}, input_image.width), min({y2}, input_image.height))\n"
        "if box[0] >= box[2] or box[1] >= box[3]:\n"
        "    raise ValueError(f'the box {box} holds no pixel')\n"
        "display(input_image.crop(box))"
    )


def _cut(text: str) -> tuple[str, list[_Fence]]:
    """Blank out what only looks like tags; give the rest and the fences that stand in the open."""
    fences = list(_fences(text))
    visible = _blank(text, [fence.span for fence in fences if fence.is_closed])
    hidden = list(_between(visible, "<think>", "</think>"))
    last = fences[-1] if fences else None
    if last is not None and not last.is_closed and not _is_inside(last.span, hidden):
        visible = _blank(visible, [last.span])
    visible = _blank(visible, hidden)
    forged = list(_between(visible, "<tool_response>", "</tool_response>"))
    visible = _blank(visible, forged)
    hidden = sorted(hidden + forged)
    return visible, [fence for fence in fences if not _is_inside(fence.span, hidden)]


def _fences(text: str) -> Iterator[_Fence]:
    """Find the fenced blocks in order; code that never closes runs to the end and is the last.

    A bare fence that never closes is only text: it may as well be one that never opened.
    """
    last_wrapper = text.rfind("</code>")
    position = 0
    while (opening := _OPENING.search(text, position)) is not None:
        is_wrapped = opening[1] is not None
        start = opening.start() + len(opening[1] or "")
        body = opening.end()
        closing = _wrapped_end(text, body) if is_wrapped and body <= last_wrapper else None
        closing = closing or _end(text, body)
        if closing is None:
            rest = _Fence((start, len(text)), opening[2], text[body:], is_wrapped, is_closed=False)
            if is_wrapped or rest.is_python:
                yield rest
            return
        yield _Fence((start, closing[1]), opening[2], text[body : closing[0]], is_wrapped)
        position = closing[1]


def _end(text: str, body: int) -> Span | None:
    """Where a fence closes: at a line's start, or else before a line's end or a tag."""
    closing = _CLOSING.search(text, body)
    return closing.span() if closing else None


def _wrapped_end(text: str, body: int) -> Span | None:
    """Where a fence in a code tag closes: just before ``</code>``, so code may hold fences."""
    close = text.find("</code>", body)
    limit = text.find("<code>", body, close) if close >= 0 else -1
    if close < 0 or limit >= 0:
        return None
    fence = text.rfind("```", body, close)
    if fence >= 0 and not text[fence + 3 : close].strip():
        return fence, fence + 3
    return None


def _between(text: str, opening: str, closing: str) -> Iterator[Span]:
    """Find the regions from each opening tag to the next closing one, tags included."""
    position = 0
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start + len(opening))
        if end < 0:
            return
        position = end + len(closing)
        yield start, position


def _blank(text: str, spans: Sequence[Span]) -> str:
    """Replace the spans by as many NULs, which make no tag."""
    pieces: list[str] = []
    position = 0
    for start, end in spans:
        pieces += text[position:start], "\0" * (end - start)
        position = end
    return "".join(pieces) + text[position:]


def _is_inside(span: Span, regions: Sequence[Span]) -> bool:
    """Whether a span begins in one of the regions, which are in order and apart."""
    index = bisect_right(regions, span[0], key=lambda region: region[0]) - 1
    return index >= 0 and span[0] < regions[index][1]
