r"""Fenced code blocks of a reply, found in one pass whose time is linear in the text.

The rules are CommonMark's (spec 0.31, section 4.5): three or more backticks or tildes, closed by
as many or more on a line of their own; the fence's indent (that of a list item too) is removed from
the content; an info string of a backtick fence holds no backtick. As models deviate from the rules,
a fence may also open after text, and close after code (``print(1)`` and the backticks on one line)
or before text, where no regular end comes first. A fence in ``<code>`` closes at ``</code>``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from .fence_content import without_indent, without_quotes

Span = tuple[int, int]

LOOKAHEAD = 16
"""Maximum number of fences read past a doubtful end to find a regular one; keeps time linear."""

_RUN = re.compile(r"`{3,}|~{3,}")
_CONTAINERS = re.compile(r"[ \t]*(?:(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)|>[ \t]*)*")
_SPACE = re.compile(r"[ \t\r]*")
_WRAPPER = re.compile(r"<code>\s*")
_LANGUAGE = re.compile(r"\{?[ \t]*\.?([\w+.#-]*)")
_PYTHON = re.compile(r"(?:python|py)(?:3(?:\.\d{1,2})?)?", re.IGNORECASE)
_THOUGHT_END = re.compile(r"^[ \t]*</think>|</think>(?=[ \t\r]*$)", re.IGNORECASE | re.MULTILINE)
_TAGS = ("<code>", "</code>", "<think>", "</think>", "</answer>", "</tool_response>")
_LONGEST_TAG = 24  # with some spaces behind it
_MOST_INDENT = 3  # of a closing fence, beyond that of the opening one


@dataclass(frozen=True, slots=True)
class Fence:
    """A fenced block.

    Attributes:
        span: Span in the text, fences included.
        language: First word of its info string; empty for a bare fence.
        body: Content, without the fence's indent.
        is_wrapped: Whether ``<code>`` precedes it.
        is_closed: Whether it ends before the text does.
    """

    span: Span
    language: str
    body: str
    is_wrapped: bool
    is_closed: bool = True

    @property
    def is_python(self) -> bool:
        """Whether its info string names Python."""
        return _is_python(self.language)


@dataclass(frozen=True, slots=True)
class _Mark:
    """A run of fence characters, with its possible roles.

    Attributes:
        start: Start of the run.
        end: End of the run.
        line: Start of its line.
        next_line: Start of the next line.
        character: Backtick or tilde.
        column: Indent of the block that its line belongs to.
        is_first: Whether only indent, list markers or quote marks precede it in its line.
        closes: How it may close a block: ``alone`` by CommonMark, ``loosely`` as models write, or
            None.
        language: Language of the block that it may open; None where it opens none.
    """

    start: int
    end: int
    line: int
    next_line: int
    character: str
    column: int
    is_first: bool
    closes: Literal["alone", "loosely"] | None
    language: str | None

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def is_labelled(self) -> bool:
        """Whether it certainly opens a block: first in its line, with a language."""
        return self.is_first and bool(self.language)

    @property
    def closing_start(self) -> int:
        """End of the body that it closes, which excludes its own indent."""
        return self.line if self.is_first else self.start


@dataclass(frozen=True, slots=True)
class _End:
    """End of a block: its closing mark (None: not a block), and the next mark to read."""

    closing: _Mark | None
    following: int


def find_fences(text: str) -> list[Fence]:
    r"""Return the fenced blocks in order; code that never closes extends to the end of the text.

    A bare fence that never closes is plain text, as it may be a stray closing fence.

    >>> [fence.body for fence in find_fences("- so:\n  ~~~py\n  x = 1\n  ~~~\n")]
    ['x = 1\n']
    """
    scan = _Scan(text)
    found: list[Fence] = []
    index = 0
    while index < len(scan.marks):
        opening = scan.marks[index]
        index += 1
        if opening.language is None:
            continue
        end = scan.end_of(opening, index)
        if end is None:
            rest = scan.fence(opening, None)
            if rest.is_wrapped or rest.is_python:
                return [*found, rest]
            continue
        index = end.following
        if end.closing is not None:
            found.append(scan.fence(opening, end.closing))
    return found


class _Scan:
    """The marks of a text, with precomputed tables to pair them in linear time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.marks = list(_marks(text))
        self._starts = [mark.start for mark in self.marks]
        self._after_wrapper = {found.end() for found in _WRAPPER.finditer(text)}
        self._wrappers = _positions(text, "<code>")
        self._wrapper_ends = _positions(text, "</code>")
        self._thought_ends = [found.end() for found in _THOUGHT_END.finditer(text)]
        # The longest closing run from each mark on, to detect a block without an end at once.
        self._longest = {one: _longest_from(self.marks, one) for one in "`~"}
        python = (n for n, mark in enumerate(self.marks) if _opens_python(mark))
        self._last_python = max(python, default=-1)

    def fence(self, opening: _Mark, closing: _Mark | None) -> Fence:
        """Return the block of a pair of marks; without a closing one it extends to the end."""
        stop = len(self._text) if closing is None else closing.closing_start
        body = self._text[opening.next_line : stop]
        prefix = self._text[opening.line : opening.start] if opening.is_first else ""
        return Fence(
            span=(opening.start, len(self._text) if closing is None else closing.end),
            language=opening.language or "",
            body=without_indent(without_quotes(body, prefix), opening.column),
            is_wrapped=self._is_wrapped(opening),
            is_closed=closing is not None,
        )

    def end_of(self, opening: _Mark, index: int) -> _End | None:
        """Return the end of a block among the marks from ``index`` on; None without an end."""
        if self._is_wrapped(opening) and (end := self._wrapped_end(opening, index)) is not None:
            return end
        if self._longest[opening.character][index] < opening.length:
            return self._started_in_a_thought(opening)
        doubtful: int | None = None
        for place in range(index, len(self.marks)):
            mark = self.marks[place]
            if doubtful is not None and (mark.is_labelled or place - doubtful > LOOKAHEAD):
                break
            if (following := self._given_up(opening, index, place)) is not None:
                return _End(None, following)
            if mark.character != opening.character or mark.length < opening.length:
                continue
            if mark.closes == "alone" and mark.column <= opening.column + _MOST_INDENT:
                return _End(mark, place + 1)
            if mark.closes is not None and doubtful is None:
                doubtful = place
        return None if doubtful is None else _End(self.marks[doubtful], doubtful + 1)

    def _given_up(self, opening: _Mark, index: int, place: int) -> int | None:
        """Return the mark to continue from where ``opening`` turns out to open no block, else None.

        It opens none where Python opens before it is closed, and it is a block of another language
        (or backticks after text), or started in a thought that has ended since.
        """
        mark = self.marks[place]
        if not _opens_python(mark):
            return None
        is_bare = opening.is_first and not opening.language
        is_code = is_bare or _is_python(opening.language) or self._is_wrapped(opening)
        is_near = place - index <= LOOKAHEAD and self._can_close(opening, mark)
        if is_near and not is_code:
            return index
        thoughts = bisect_left(self._thought_ends, mark.start)
        last = self._thought_ends[thoughts - 1] if thoughts else 0
        return bisect_left(self._starts, last) if last > opening.end else None

    def _started_in_a_thought(self, opening: _Mark) -> _End | None:
        """Return the mark after the thought in which a block without an end started."""
        place = bisect_left(self._thought_ends, opening.end)
        if place == len(self._thought_ends):
            return None
        following = bisect_left(self._starts, self._thought_ends[place])
        return _End(None, following) if following <= self._last_python else None

    def _is_wrapped(self, opening: _Mark) -> bool:
        return opening.start in self._after_wrapper

    def _wrapped_end(self, opening: _Mark, index: int) -> _End | None:
        """Return the end in a code tag: just before ``</code>``, so that code may hold fences."""
        end = _next(self._wrapper_ends, opening.end)
        wrapper = _next(self._wrappers, opening.end)
        if end is None or (wrapper is not None and wrapper < end):
            return None
        last = bisect_left(self._starts, end) - 1
        if last < index or not self._can_close(opening, self.marks[last]):
            return None
        if self._text[self.marks[last].end : end].strip():
            return None
        for place in range(index, last):  # a second block in the same tag
            mark, following = self.marks[place], self.marks[place + 1]
            is_end = mark.closes == "alone" and self._can_close(opening, mark)
            if is_end and _opens_python(following):
                return _End(mark, place + 1)
        return _End(self.marks[last], last + 1)

    @staticmethod
    def _can_close(opening: _Mark, mark: _Mark) -> bool:
        return mark.character == opening.character and mark.length >= opening.length


def _marks(text: str) -> Iterator[_Mark]:
    """Yield the runs of fence characters, line by line."""
    position = 0
    while (run := _RUN.search(text, position)) is not None:
        line_break = text.rfind("\n", position, run.start())
        begin = position if line_break < 0 else line_break + 1
        end = text.find("\n", run.end())
        end = len(text) if end < 0 else end
        yield from _marks_of_line(text, begin, end)
        position = end + 1


def _marks_of_line(text: str, begin: int, end: int) -> Iterator[_Mark]:
    runs = list(_RUN.finditer(text, begin, end))
    containers = _CONTAINERS.match(text, begin, runs[0].start())
    block = containers.end() if containers is not None else begin
    column = len(text[begin:block].expandtabs(4))
    opening = _opening_run(text, runs, end)
    for number, run in enumerate(runs):
        is_first = number == 0 and block == run.start()
        before = text[max(begin, run.start() - _LONGEST_TAG) : run.start()]
        is_block = is_first or before.rstrip().endswith(_TAGS)
        is_opening = run is opening or (is_block and number == 0 and run[0][0] == "~")
        language = _language(text, run, end, is_block=is_block) if is_opening else None
        is_alone = is_first and not text[begin:block].strip(" \t>")
        closes = None if _is_python(language) else _closes(text, run, end, is_first=is_alone)
        yield _Mark(
            start=run.start(),
            end=run.end(),
            line=begin,
            next_line=end + 1,
            character=run[0][0],
            column=column,
            is_first=is_first,
            closes=closes,
            language=language if end < len(text) else None,
        )


def _opening_run(text: str, runs: Sequence[re.Match[str]], end: int) -> re.Match[str] | None:
    """Return the run of backticks that may open a block: the last, outside code spans."""
    pending: re.Match[str] | None = None
    for run in runs:
        if run[0][0] != "`":
            continue
        if pending is None:
            pending = run
        elif len(pending[0]) == len(run[0]):
            pending = None
    if pending is None or text.find("`", pending.end(), end) >= 0:
        return None
    return pending


def _language(text: str, run: re.Match[str], end: int, *, is_block: bool) -> str | None:
    """Return the language of the info string; None where it has several words after text."""
    info = text[run.end() : end].strip()
    found = _LANGUAGE.match(info)
    word = found[1] if found is not None else ""
    return word if is_block or info == word else None


def _closes(
    text: str, run: re.Match[str], end: int, *, is_first: bool
) -> Literal["alone", "loosely"] | None:
    """Return how a run may close a block: only a tag may follow it in its line."""
    space = _SPACE.match(text, run.end(), end)
    after = space.end() if space is not None else run.end()
    if after == end or text[after] == "<":
        return "alone" if is_first else "loosely"
    next_character = text[run.end()]
    is_word = next_character.isalnum() or next_character in "_`"
    return None if is_word or not is_first else "loosely"


def _longest_from(marks: Sequence[_Mark], character: str) -> list[int]:
    """Return, from each mark on, the length of the longest that may close; 0 after the last."""
    lengths = [
        mark.length if mark.closes is not None and mark.character == character else 0
        for mark in marks
    ]
    return [*accumulate(reversed(lengths), max, initial=0)][::-1]


def _opens_python(mark: _Mark) -> bool:
    return mark.is_labelled and _is_python(mark.language)


def _is_python(language: str | None) -> bool:
    return _PYTHON.fullmatch(language or "") is not None


def _positions(text: str, tag: str) -> list[int]:
    return [found.start() for found in re.finditer(re.escape(tag), text)]


def _next(positions: Sequence[int], start: int) -> int | None:
    index = bisect_left(positions, start)
    return positions[index] if index < len(positions) else None
