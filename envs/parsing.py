"""The parser of every policy's text: its action, and faults in its form.

Fenced code is removed first (`fences`), then thoughts, then tool responses forged by the policy, so
that nothing inside them has an effect: there a tag is only text. Answers and the counts of tags are
read from the rest. The parser never raises, and its time is linear in the text.

A thought ends with ``</think>``. Without an opening tag, the model's template opened it (in the
prompt), and all text before the tag is thought.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .text.fences import Fence, Span, find_fences
from .types import Action

Interface = Literal["code", "box", "text"]
INTERFACES: tuple[Interface, ...] = ("code", "box", "text")

TOO_LONG_ANSWER = 1000
"""Length, in characters, from which an answer is a format fault."""

_THINK = re.compile(r"<(/?)think>", re.IGNORECASE | re.ASCII)
_LINE_END = re.compile(r"[ \t\r]*(?:\n|\Z)")
_ACTS = ("<answer>", "<box>")
_NUMBER = r"\s*(-?\d{1,7}(?:\.\d{1,7})?)\s*"
_FOUR_NUMBERS = re.compile(",".join([_NUMBER] * 4), re.ASCII)
_MOST_INDENT = 32
_BARE = 2
_HALF_THOUGHT = "a think tag without its other half"


@dataclass(frozen=True, slots=True)
class Requests:
    """Tool requests in a text.

    Attributes:
        count: Number of blocks of code, or of boxes.
        chosen: Index of the one that runs, from 0; the others do not.
        kind: Name of the requests.
    """

    count: int
    chosen: int = 0
    kind: Literal["code blocks", "boxes"] = "code blocks"


ONE_REQUEST = Requests(1)


@dataclass(frozen=True, slots=True)
class _Reading:
    """A text split into its parts.

    Attributes:
        visible: Text with all parts without effect blanked out, of unchanged length.
        fences: Fenced blocks outside thoughts and tool responses.
        thoughts: Spans of thoughts, tags included, in order and disjoint.
        fault: Fault in its think tags; None without one.
    """

    visible: str
    fences: tuple[Fence, ...]
    thoughts: tuple[Span, ...]
    fault: str | None


def parse_action(text: str, *, interface: Interface = "code") -> Action:
    """Return the action of a policy's text: code, an answer, or neither (malformed).

    An answer ends the episode, so it takes precedence over code in the same text; of several
    answers the first counts, and of several blocks the first.

    Args:
        text: Text of one turn of the policy, any Unicode.
        interface: Tool of the policy: ``code``, ``box`` (crops only), ``text`` (none).

    >>> parse_action("<think>Easy.</think><answer>5</answer>")
    Action(kind='answer', content='5', format_fault=None)
    """
    reading = _read(text)
    visible, fault = reading.visible, reading.fault
    opened, closed = visible.count("<answer>"), visible.count("</answer>")
    answer = next(_between(visible, "<answer>", "</answer>"), None)
    if answer is not None:
        return _answer(visible, answer, fault, is_single=opened == closed == 1)
    if opened or closed:
        fault = fault or "an answer tag without its other half"
    if interface == "box":
        return _box(visible, fault)
    if interface == "text":
        return _malformed("no answer between <answer> and </answer>")
    return _code(reading.fences, fault)


def requests_in(text: str, *, interface: Interface = "code") -> Requests:
    """Return the blocks or boxes that a text requests to run; one per turn is run.

    Beside blocks labelled Python, or inside a code tag, a bare block counts as output.

    >>> requests_in("<box>1,2,3,4</box> <box>5,6,7,8</box>", interface="box")
    Requests(count=2, chosen=0, kind='boxes')
    """
    reading = _read(text)
    if interface == "box":
        count = sum(1 for _ in _between(reading.visible, "<box>", "</box>"))
        return Requests(count, kind="boxes")
    if interface == "text":
        return Requests(0)
    blocks = [fence for fence in reading.fences if fence.is_python or not fence.language]
    if any(_preference(fence) < _BARE for fence in blocks):
        blocks = [fence for fence in blocks if _preference(fence) < _BARE]
    first = min(blocks, key=_preference, default=None)
    return Requests(len(blocks), 0 if first is None else blocks.index(first))


def thought_in(text: str) -> str:
    """Return the thoughts of a text, without the tags; empty without thoughts.

    >>> thought_in("Two rows.</think><answer>2</answer>")
    'Two rows.'
    """
    spans = _read(text).thoughts
    thoughts = (_THINK.sub("", text[start:end]).strip() for start, end in spans)
    return "\n".join(thought for thought in thoughts if thought)


def _answer(visible: str, span: Span, fault: str | None, *, is_single: bool) -> Action:
    answer = visible[span[0] + len("<answer>") : span[1] - len("</answer>")]
    answer = answer.replace("\0", "").strip()
    if not is_single:
        fault = fault or "not exactly one answer"
    if len(answer) >= TOO_LONG_ANSWER:
        fault = fault or f"an answer of {len(answer)} characters"
    return Action("answer", answer, fault)


def _code(fences: Sequence[Fence], fault: str | None) -> Action:
    if not fences:
        return _malformed("neither code in a python fence nor an answer")
    runnable = [fence for fence in fences if fence.is_python or not fence.language]
    if not runnable:
        return _malformed(f"the fence says {fences[0].language!r}, not python")
    first = min(runnable, key=_preference)
    if not first.is_closed:
        return _malformed("a code fence that is not closed")
    return Action("code", first.body, fault)


def _preference(fence: Fence) -> int:
    """Return the rank of a block, lowest first: in a code tag, labelled, bare."""
    return 0 if fence.is_wrapped else 1 if fence.is_python else _BARE


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
    """Return the block that shows a crop of the question's image, clipped to its edges."""
    return (
        f"box = (max({x1}, 0), max({y1}, 0), "
        f"min({x2}, input_image.width), min({y2}, input_image.height))\n"
        "if box[0] >= box[2] or box[1] >= box[3]:\n"
        "    raise ValueError(f'the box {box} holds no pixel')\n"
        "display(input_image.crop(box))"
    )


def _read(text: str) -> _Reading:
    """Blank out tags without effect, and find the blocks outside thoughts and responses."""
    fences = find_fences(text)
    visible = _blank(text, [fence.span for fence in fences if fence.is_closed])
    paired = _blank(visible, list(_paired_thoughts(visible)))
    forged = list(_between(paired, "<tool_response>", "</tool_response>"))
    visible = _blank(visible, forged)
    last = fences[-1] if fences else None
    unclosed = len(text) if last is None or last.is_closed else last.span[0]
    acts = [visible.rfind(tag) for tag in _ACTS] + [fence.span[0] for fence in fences[-1:]]
    thoughts, fault = _thoughts(visible, unclosed=unclosed, last_act=max(acts))
    if last is not None and not last.is_closed and not _is_inside(last.span, thoughts, forged):
        visible = _blank(visible, [last.span])
        thoughts, fault = _thoughts(visible, unclosed=unclosed, last_act=max(acts))
    outside = tuple(fence for fence in fences if not _is_inside(fence.span, thoughts, forged))
    return _Reading(_blank(visible, thoughts), outside, tuple(thoughts), fault)


def _paired_thoughts(visible: str) -> Iterator[Span]:
    """Yield the thoughts that have both tags."""
    opened = -1
    for tag in _think_tags(visible):
        if tag[1] and opened >= 0:
            yield opened, tag.end()
            opened = -1
        elif not tag[1] and opened < 0:
            opened = tag.start()


def _thoughts(visible: str, *, unclosed: int, last_act: int) -> tuple[list[Span], str | None]:
    """Return the thoughts, tags included, in order and disjoint, and the fault in their tags.

    Within a thought ``<think>`` is text, or has its own closing tag. Of several closing tags
    without an opening one, the last before an answer or a block counts.

    Args:
        visible: Text with blocks of code blanked out.
        unclosed: Start of code that is never closed; after it a closing tag counts at the start
            or the end of a line only.
        last_act: Start of the last answer, box or block.
    """
    spans: list[Span] = []
    lone: list[int] = []
    opened, nested, surplus = -1, 0, 0
    for number, tag in enumerate(_think_tags(visible)):
        if not tag[1]:
            nested += opened >= 0
            opened = tag.start() if opened < 0 else opened
        elif opened >= 0:
            spans.append((opened, tag.end()))
            opened = -1
        elif nested:
            nested -= 1
            spans[-1] = spans[-1][0], tag.end()
        elif (
            tag.start() < unclosed
            or _begins_line(visible, tag.start())
            or _LINE_END.match(visible, tag.end()) is not None
        ):
            lone.append(tag.end())
            surplus += number > 0
    before_act = [end for end in lone if end <= last_act]
    if len(lone) > surplus:  # the first tag of all
        before_act = before_act or lone[:1]
    if before_act:
        end = before_act[-1]
        spans = [(0, end), *(span for span in spans if span[0] >= end)]
    return spans, _HALF_THOUGHT if surplus or opened >= 0 else None


def _think_tags(visible: str) -> Iterator[re.Match[str]]:
    """Yield the think tags; one between backticks is quoted and does not count."""
    for tag in _THINK.finditer(visible):
        around = visible[tag.start() - 1 : tag.start()], visible[tag.end() : tag.end() + 1]
        if around != ("`", "`"):
            yield tag


def _begins_line(text: str, place: int) -> bool:
    before = text[max(0, place - _MOST_INDENT) : place]
    return not before.rpartition("\n")[2].strip() and ("\n" in before or place <= _MOST_INDENT)


def _between(text: str, opening: str, closing: str) -> Iterator[Span]:
    """Yield the regions from each opening tag to the next closing one, tags included."""
    position = 0
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start + len(opening))
        if end < 0:
            return
        position = end + len(closing)
        yield start, position


def _blank(text: str, spans: Sequence[Span]) -> str:
    """Replace the spans by as many NULs, which form no tag."""
    pieces: list[str] = []
    position = 0
    for start, end in spans:
        pieces += text[position:start], "\0" * (end - start)
        position = end
    return "".join(pieces) + text[position:]


def _is_inside(span: Span, *regions: Sequence[Span]) -> bool:
    """Whether a span starts in one of the regions, each of which are in order and disjoint."""
    for some in regions:
        index = bisect_right(some, span[0], key=lambda region: region[0]) - 1
        if index >= 0 and span[0] < some[index][1]:
            return True
    return False
