"""Standard output and error of a block: kept as text, up to a limit."""

from __future__ import annotations

import io


class BoundedStream(io.TextIOBase):
    """A text stream that keeps the first ``limit`` characters and counts the rest.

    One object serves all blocks of a session, so that references to it (a logging handler) stay
    good.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[str] = []
        self._kept = 0
        self._cut = 0
        self._bytes = _ByteStream(self)

    encoding = "utf-8"
    errors = "backslashreplace"

    @property
    def buffer(self) -> _ByteStream:
        """The binary side, for code that writes bytes."""
        return self._bytes

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, text: str) -> int:
        """Keep ``text`` as far as there is room."""
        text = str.__str__(text)  # a TypeError for anything else, as sys.stdout gives
        room = self._limit - self._kept
        kept = text if len(text) <= room else text[:room]
        if kept:
            self._parts.append(kept)
            self._kept += len(kept)
            if len(self._parts) > 256:
                self._parts = ["".join(self._parts)]
        self._cut += len(text) - len(kept)
        return len(text)

    def take(self) -> str:
        """Give the text so far, with a note of what was cut, and start afresh."""
        written = "".join(self._parts).encode("utf-8", "backslashreplace").decode("utf-8")
        text = written[: self._limit]
        cut = self._cut + len(written) - len(text)
        self._parts, self._kept, self._cut = [], 0, 0
        return f"{text}\n[{cut} more characters were cut]\n" if cut else text


class _ByteStream(io.RawIOBase):
    """Bytes written to ``sys.stdout.buffer``, decoded into the text stream."""

    def __init__(self, text: BoundedStream) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        raw = bytes(data)
        self._text.write(raw.decode("utf-8", "backslashreplace"))
        return len(raw)
