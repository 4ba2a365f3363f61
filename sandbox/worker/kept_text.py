"""Long text within a limit: head and tail are kept, the characters between are counted."""

from __future__ import annotations

from collections.abc import Callable

_PARTS = 256  # pieces buffered before they are joined
_LONGEST_LINE = 4096  # characters of a line that are buffered until its end arrives


def cut_note(count: int) -> str:
    """Return the note in place of ``count`` characters that were left out."""
    return f"… {count:,} characters were cut …"


def shortened(text: str, limit: int) -> str:
    """Return ``text`` on one line if it is within ``limit`` characters, else its head and tail."""
    if len(text) <= limit:
        return text
    head, tail = limit - limit // 3, limit // 3
    return f"{text[:head]} {cut_note(len(text) - limit)} {text[-tail:]}"


def printable(text: str) -> str:
    """Return ``text`` with lone surrogates, which cannot be encoded, as backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class KeptText:
    """Text that arrives in pieces, in memory of a small multiple of the limit.

    Args:
        limit: Maximum number of characters; half for the start and half for the end of a longer
            text.
        clean: Function that rewrites the text before it is counted, line by line.
        overlap: Length of the longest pattern that ``clean`` matches; as much is kept back of a
            line that is too long to be buffered.
    """

    def __init__(
        self, limit: int, clean: Callable[[str], str] | None = None, overlap: int = 0
    ) -> None:
        self._head_limit = limit - limit // 2
        self._tail_limit = limit // 2
        self._clean = clean
        self._overlap = overlap
        self._start_afresh()

    def add(self, text: str) -> None:
        """Add a piece."""
        if self._clean is None:
            self._keep(text)
            return
        self._held += text
        ready = self._held.rfind("\n") + 1
        if len(self._held) - ready > _LONGEST_LINE:
            ready = len(self._held) - self._overlap
        if ready:
            self._keep(self._clean(self._held[:ready]))
            self._held = self._held[ready:]

    def take(self) -> str:
        """Return the text so far, with a note where it was cut, and reset."""
        self._keep(self._held if self._clean is None else self._clean(self._held))
        tail = "".join(self._tail)
        cut = max(0, len(tail) - self._tail_limit)
        head, tail, cut = "".join(self._head), tail[cut:], self._cut + cut
        self._start_afresh()
        if not cut:
            return head + tail
        return f"{head}{'' if head.endswith(chr(10)) else chr(10)}{cut_note(cut)}\n{tail}"

    def _start_afresh(self) -> None:
        self._head: list[str] = []
        self._tail: list[str] = []
        self._head_room = self._head_limit
        self._tail_held = self._cut = 0
        self._held = ""

    def _keep(self, text: str) -> None:
        if self._head_room:
            first = text[: self._head_room]
            self._head.append(first)
            self._head_room -= len(first)
            text = text[len(first) :]
            if len(self._head) > _PARTS:
                self._head = ["".join(self._head)]
        if not text:
            return
        self._tail.append(text[-self._tail_limit :] if self._tail_limit else "")
        self._tail_held += len(self._tail[-1])
        self._cut += len(text) - len(self._tail[-1])
        if self._tail_held > 4 * self._tail_limit or len(self._tail) > _PARTS:
            self._drop_middle()

    def _drop_middle(self) -> None:
        tail = "".join(self._tail)
        dropped = max(0, len(tail) - self._tail_limit)
        self._tail = [tail[dropped:]]
        self._tail_held -= dropped
        self._cut += dropped
