"""Decoding of frames from a session: every length, type and size is validated.

Model code shares its process with the worker, so a frame may hold any bytes. The functions here
raise only `FrameError`, allocate no more than the limits allow, and decode no image format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import msgpack

from ..types import Limits, Outcome
from ..worker.framing import LENGTHS, PIXEL_BYTES

_NOTE_CHARACTERS = 400  # room for "[… more characters were cut]"
_ERROR_CHARACTERS = 1_000
_WORKER_OUTCOMES = {
    "ok": Outcome.OK,
    "handled": Outcome.OK,
    "error": Outcome.ERROR,
    "timeout": Outcome.TIMEOUT,
    "memory": Outcome.MEMORY,
}


class FrameError(ValueError):
    """A frame that the protocol does not allow."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The validated header of a frame.

    Attributes:
        turn: Number of the block.
        outcome: How it ended.
        stdout: Text printed.
        stderr: Text written to standard error.
        error: One-line error; None when the outcome is OK.
        sizes: Sizes of the images whose pixels follow.
        has_handled_error: Whether it ended OK after an error that its own code handled.
    """

    turn: int
    outcome: Outcome
    stdout: str
    stderr: str
    error: str | None
    sizes: tuple[tuple[int, int], ...]
    has_handled_error: bool = False

    @property
    def blob_bytes(self) -> int:
        """Size of the pixels that follow, in bytes."""
        return sum(width * height * PIXEL_BYTES for width, height in self.sizes)


def encode_block(turn: int, code: str, wall_seconds: float, cpu_seconds: float) -> bytes:
    """Frame a block of code for the worker; any text is allowed, including lone surrogates."""
    source = code.encode("utf-8", "surrogatepass")
    header = cast(bytes, msgpack.packb([turn, source, wall_seconds, cpu_seconds]))
    return LENGTHS.pack(len(header), 0) + header


def decode_lengths(prefix: bytes | bytearray, limits: Limits) -> tuple[int, int]:
    """Return the header length and blob length of a frame.

    Raises:
        FrameError: The frame is longer than the limits allow.
    """
    header_bytes, blob_bytes = LENGTHS.unpack(prefix)
    most = 4096 + 2 * 4 * (limits.output_characters + _NOTE_CHARACTERS) + 4 * _ERROR_CHARACTERS
    most += 16 * limits.images
    if header_bytes > most or blob_bytes > limits.image_pixels * PIXEL_BYTES:
        raise FrameError(f"frame of {header_bytes} + {blob_bytes} bytes is over the limits")
    return header_bytes, blob_bytes


def decode_message(header: bytes | bytearray, limits: Limits) -> list[Any]:
    """Unpack a header into a list of plain values, without maps, bytes or extensions.

    Raises:
        FrameError: The header is not a msgpack list.
    """
    try:
        message = msgpack.unpackb(
            header,
            unicode_errors="replace",
            max_array_len=max(16, limits.images),
            max_map_len=0,
            max_bin_len=0,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise FrameError(f"not msgpack: {type(error).__name__}") from error
    except msgpack.UnpackException as error:
        raise FrameError("not msgpack") from error
    if not isinstance(message, list):
        raise FrameError(f"expected a list, got {type(message).__name__}")
    return cast("list[Any]", message)


def decode_reply(header: bytes | bytearray, blob_bytes: int, limits: Limits) -> Reply:
    """Return a reply's header, validated against the limits and the length of its blob.

    Raises:
        FrameError: A part has another type, size or sum than the protocol allows.
    """
    message = decode_message(header, limits)
    if len(message) != 6:
        raise FrameError(f"expected 6 fields, got {len(message)}")
    turn, outcome, stdout, stderr, error, sizes = message
    if type(turn) is not int:
        raise FrameError("turn is not an integer")
    if not isinstance(outcome, str) or outcome not in _WORKER_OUTCOMES:
        raise FrameError("no such outcome")
    most = limits.output_characters + _NOTE_CHARACTERS
    reply = Reply(
        turn=turn,
        outcome=_WORKER_OUTCOMES[outcome],
        stdout=_text(stdout, most),
        stderr=_text(stderr, most),
        error=None if error is None else _text(error, _ERROR_CHARACTERS),
        sizes=_sizes(sizes, limits),
        has_handled_error=outcome == "handled",
    )
    if (reply.error is None) != (reply.outcome is Outcome.OK):
        raise FrameError("an error and its outcome disagree")
    if (expected := reply.blob_bytes) != blob_bytes:
        raise FrameError(f"sizes say {expected} bytes of pixels, {blob_bytes} follow")
    return reply


def _text(value: object, most: int) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise FrameError("a text is missing or too long")
    return value


def _sizes(value: object, limits: Limits) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list):
        raise FrameError("picture sizes are not a list")
    if not value:  # as nearly always
        return ()
    items = cast("list[object]", value)
    if len(items) > limits.images:
        raise FrameError("too many pictures")
    sizes = tuple(_size(item) for item in items)
    if sum(width * height for width, height in sizes) > limits.image_pixels:
        raise FrameError("too many pixels")
    return sizes


def _size(value: object) -> tuple[int, int]:
    if isinstance(value, list):
        pair = cast("list[object]", value)
        if len(pair) == 2 and type(pair[0]) is int and type(pair[1]) is int:
            width, height = pair[0], pair[1]
            if width > 0 and height > 0:
                return width, height
    raise FrameError("a picture's size must be two positive integers")
