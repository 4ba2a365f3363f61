"""Standard output and error of a session: ordinary text streams whose text is bounded.

``sys.stdout`` is an `io.TextIOWrapper` over a buffered writer, as in any program, so that code can
wrap, reconfigure, detach or close it. Text always belongs to the block that wrote it: at the
block's end every stream that writes to these is flushed, and a stream that the block broke is
recreated before the next one.

Descriptors 1 and 2 are /dev/null, since the output of C libraries holds clocks and addresses; what
Python code writes to them is captured all the same (`descriptors`).
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import io
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .descriptors import DescriptorFile
from .kept_text import KeptText, printable
from .stopwatch import TimeLimitReached

_CHUNK = 65_536
_WRAPPERS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
_MARKED = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}
_DEEPEST = 3  # a text stream over a buffered one over ours


class Output:
    """One of the two standard streams, over all blocks of a session.

    Args:
        name: ``stdout`` or ``stderr``.
        kept: Receiver of its text.
        file: Receiver of what is written to the stream's descriptor.
    """

    def __init__(self, name: str, kept: KeptText, file: DescriptorFile) -> None:
        self._name = name
        self._kept = kept
        self._file = file
        self._sink = _Sink(self.receive, file, name)
        self._decoder = _decoder("utf-8")
        self._encoding = "utf-8"
        self._is_handed_out = False
        self._renew()

    def begin(self) -> None:
        """Restore the stream before a block, whatever the last one changed."""
        with contextlib.suppress(OSError):  # code closed the file, and no descriptor is free
            self._file.restore()
        if not self._is_whole():
            self._renew()
        self._stream.restore_methods()
        setattr(sys, self._name, self._stream)
        setattr(sys, f"__{self._name}__", self._stream)

    def write(self, text: str) -> None:
        """Write after the content of the program's streams, which may be broken or redirected."""
        self.flush([getattr(sys, self._name, None)])
        for start in range(0, len(text), _CHUNK):
            self._kept.add(printable(text[start : start + _CHUNK]))

    def settle(self, namespace: Mapping[str, Any]) -> None:
        """Flush every stream that writes here: current, original, in a variable, or wrapped."""
        held = [value for value in list(namespace.values()) if self.leads_here(value)]
        if self._file.is_open:  # its stream may be in a list, or in a function
            streams = [one for one in gc.get_objects() if issubclass(type(one), _WRAPPERS)]
            held += [one for one in streams if self.leads_here(one)]
        current = [getattr(sys, self._name, None), *held]
        self.flush([*current, *(self._wrappers() if self._is_handed_out else ())])

    def flush(self, streams: Iterable[Any]) -> None:
        """Flush ``streams``, then the session's own, then the descriptor; any may be broken."""
        for stream in (*streams, self._stream, self._buffer):
            try:
                stream.flush()
            except TimeLimitReached:
                raise
            except BaseException:  # noqa: BLE001 - a model's stream may raise anything
                continue
        self._drain()

    def owns(self, stream: object) -> bool:
        """Whether a stream is the program's own standard stream."""
        return stream is self._stream

    def take(self) -> str:
        """Return the text so far, with a note of what was cut, and reset."""
        self._kept.add(self._decoder.decode(b"", final=True))
        return self._kept.take()

    def hand_out(self) -> None:
        """Note that code has accessed the binary stream, and may have wrapped it."""
        self._is_handed_out = True

    def _renew(self) -> None:
        self._buffer = _Buffer(self._sink)
        self._stream = _Stream(self._buffer, self.hand_out)

    def _is_whole(self) -> bool:
        try:
            return (
                io.TextIOWrapper.buffer.__get__(self._stream) is self._buffer
                and self._buffer.raw is self._sink
                and not self._stream.closed
            )
        except Exception:  # noqa: BLE001 - detached, or broken
            return False

    def receive(self, data: bytes) -> None:
        """Process bytes that were written to the stream or its descriptor."""
        self._drain()
        self._decode(data)

    def _drain(self) -> None:
        for data in self._file.take():
            self._decode(data)

    def _decode(self, data: bytes) -> None:
        encoding = self._encoding_in_use()
        if encoding != self._encoding:
            self._kept.add(self._decoder.decode(b"", final=True))
            self._decoder = _decoder(encoding)
            self._encoding = encoding
        for start in range(0, len(data), _CHUNK):
            text = self._decoder.decode(data[start : start + _CHUNK])
            self._kept.add(printable(text.replace("\ufeff", "") if encoding in _MARKED else text))

    def _encoding_in_use(self) -> str:
        """Return the encoding of the stream in use, which a block may have changed."""
        stream: Any = getattr(sys, self._name, None)
        if stream is not self._stream and not self.leads_here(stream):
            return "utf-8"
        try:
            return codecs.lookup(stream.encoding).name
        except Exception:  # noqa: BLE001 - a binary stream, or one that is detached
            return "utf-8"

    def leads_here(self, value: object) -> bool:
        """Whether a value is a stream that writes to this stream's descriptor."""
        try:
            return isinstance(value, _WRAPPERS) and self._file.is_ours(value.fileno())
        except Exception:  # noqa: BLE001 - closed, detached, or invalid
            return False

    def _wrappers(self) -> list[Any]:
        """Return the streams that code has wrapped around these, the outermost first."""
        found: list[Any] = []
        over: list[Any] = [self._buffer, self._sink]
        for _ in range(_DEEPEST):
            ours = (self._stream, self._buffer)
            over = [
                one
                for one in gc.get_referrers(*over)
                if isinstance(one, _WRAPPERS) and not any(one is each for each in ours)
            ]
            if not over:
                break
            found[:0] = over
        return found


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    """Return the decoder of an encoding; a missing byte order mark is allowed."""
    try:
        return codecs.getincrementaldecoder(_MARKED.get(encoding, encoding))("backslashreplace")
    except LookupError:  # not a text encoding
        return codecs.getincrementaldecoder("utf-8")("backslashreplace")


class _Stream(io.TextIOWrapper):
    """The stream that code finds as ``sys.stdout``."""

    def __init__(self, buffer: _Buffer, hand_out: Callable[[], None]) -> None:
        super().__init__(buffer, encoding="utf-8", errors="backslashreplace")
        self._hand_out = hand_out
        self.restore_methods()

    def restore_methods(self) -> None:
        """Remove attributes with which code replaced methods."""
        hand_out = self._hand_out
        vars(self).clear()
        vars(self)["mode"] = "w"
        self._hand_out = hand_out

    @property
    def buffer(self) -> Any:  # type: ignore[override]  # noqa: ANN401
        """The binary stream."""
        self._hand_out()
        return io.TextIOWrapper.buffer.__get__(self)

    def detach(self) -> Any:  # noqa: ANN401
        """Detach and return the binary stream."""
        self._hand_out()
        return super().detach()

    def write(self, text: Any) -> int:  # noqa: ANN401 - the library refuses other types
        """Write ``text``; a long one in pieces, to avoid a second copy of it."""
        if not isinstance(text, str) or len(text) <= _CHUNK:
            return super().write(text)
        for start in range(0, len(text), _CHUNK):
            super().write(text[start : start + _CHUNK])
        return len(text)


class _Buffer(io.BufferedWriter):
    """A buffered writer that stays open, although a discarded wrapper closes it."""

    def close(self) -> None:
        """Flush, without closing."""
        self.flush()


class _Sink(io.RawIOBase):
    """The raw end of a stream."""

    mode = "wb"

    def __init__(self, receive: Callable[[bytes], None], file: DescriptorFile, name: str) -> None:
        self._receive = receive
        self._file = file
        self.name = f"<{name}>"

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - whatever has a buffer
        raw = bytes(data)
        self._receive(raw)
        return len(raw)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        """Stay open, for the next block."""
