"""Frames that a session might send: valid ones, mutations of them, and noise; seeded."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
from codedance.sandbox import Limits

LIMITS = Limits(output_characters=200, images=3, image_pixels=4_000)
_OUTCOMES = ("ok", "error", "timeout", "memory")
_ODD_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 2**31, 2**32, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 1e308,
    float("nan"), float("inf"), "", "ok", "a" * 700, "\0", "é" * 650, b"", b"ok", b"\xff" * 40, [],
    [[]], [[1, 1]], [[[1, 1]]], [[0, 5]], [[-1, -3]], [[2**40, 2**40]], [[1.0, 1]], [[True, True]],
    [["1", "1"]], [[1, 1, 1]], {}, {"a": 1}, {1: [2]}, [None] * 20, [[1, 1]] * 9,
    msgpack.ExtType(1, b"x"), msgpack.Timestamp(1, 2), "failed", "ready",
)  # fmt: skip

Fields = list[Any]


def frames(seed: int, count: int) -> Iterator[bytes]:
    """Yield ``count`` frames: a tenth valid, seven tenths mutations of valid ones, else noise."""
    draw = random.Random(seed)
    for _ in range(count):
        kind = draw.random()
        if kind < 0.1:
            yield frame(*valid(draw))
        elif kind < 0.8:
            yield _mutate(draw)
        else:
            yield _noise(draw)


def valid(draw: random.Random) -> tuple[Fields, bytes]:
    """Return a random valid reply with its pixels."""
    outcome = draw.choice(_OUTCOMES)
    sizes = [[draw.randint(1, 30), draw.randint(1, 30)] for _ in range(draw.randint(0, 3))]
    error = None if outcome == "ok" else f"ValueError: {_text(draw, 60)}, line {draw.randint(1, 9)}"
    fields = [draw.randint(1, 9), outcome, _text(draw, 300), _text(draw, 300), error, sizes]
    return fields, draw.randbytes(sum(4 * width * height for width, height in sizes))


def frame(fields: Any, pixels: bytes) -> bytes:
    """Pack a frame like the worker."""
    header = fields if isinstance(fields, bytes) else msgpack.packb(fields, use_bin_type=True)
    return struct.pack("!II", len(header), len(pixels)) + header + pixels


def _text(draw: random.Random, most: int) -> str:
    letters = "abc \n\té€😀\x00\ufffd"
    return "".join(draw.choices(letters, k=draw.randint(0, most)))


def _mutate(draw: random.Random) -> bytes:
    fields, pixels = valid(draw)
    mutation = draw.choice(_MUTATIONS)
    return mutation(draw, fields, pixels)


def _lengths(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    whole = frame(fields, pixels)
    header, blob = struct.unpack("!II", whole[:8])
    header = draw.choice((header, header + draw.randint(-3, 3), draw.randint(0, 2**32 - 1)))
    blob = draw.choice((blob + draw.randint(-3, 3), draw.randint(0, 17_000), 2**32 - 1))
    return struct.pack("!II", header & 0xFFFFFFFF, blob & 0xFFFFFFFF) + whole[8:]


def _outcome(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    fields[1] = draw.choice((*_OUTCOMES, "killed", "OK", "", None, 0, b"ok", ["ok"]))
    return frame(fields, pixels)


def _sizes(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    entry = [
        draw.choice((0, 1, -1, 30, 4_000, 2**31, 2**64 - 1, 1.5, "3", None, True)) for _ in "ab"
    ]
    position = draw.randint(0, len(fields[5]))
    fields[5][position : position + draw.randint(0, 1)] = [entry]
    return frame(fields, pixels)


def _field(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    for _ in range(draw.randint(1, 3)):
        fields[draw.randrange(len(fields))] = draw.choice(_ODD_VALUES)
    return frame(fields, pixels)


def _shape(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    changes: tuple[Callable[[], Any], ...] = (
        lambda: fields[: draw.randint(0, 5)],
        lambda: fields + [draw.choice(_ODD_VALUES)] * draw.randint(1, 12),
        lambda: {str(index): value for index, value in enumerate(fields)},
        lambda: [fields],
        lambda: draw.sample(fields, len(fields)),
        lambda: draw.choice(_ODD_VALUES),
    )
    return frame(draw.choice(changes)(), pixels)


def _nesting(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    deep = b"\x91" * draw.choice((1, 5, 200, 600, 1_200, 5_000)) + b"\x01"
    packed = msgpack.packb(fields)
    bombs = (deep, b"\xdd\xff\xff\xff\xff" + packed, b"\xdc\xff\xff" * 90, b"\xdf\xff\xff\xff\xff")
    whole = draw.choice((*bombs, packed[:1] + draw.choice(bombs) + packed[1:]))
    return frame(whole, pixels)


def _cut(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    whole = frame(fields, pixels)
    return whole[: draw.randint(0, len(whole))]


def _flip(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    whole = bytearray(frame(fields, pixels))
    end = draw.choice((len(whole), len(whole) - len(pixels)))  # most flips should be in the header
    for _ in range(draw.randint(1, 6)):
        whole[draw.randrange(end)] = draw.choice((0, 0x7F, 0x80, 0xC1, 0xFF, draw.randint(0, 255)))
    return bytes(whole)


def _splice(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    whole = frame(fields, pixels)
    other = frame(*valid(draw))
    return whole[: draw.randint(0, len(whole))] + other[draw.randint(0, len(other)) :]


def _broken_text(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    raw = draw.choice((b"\xed\xa0\x80", b"\xff\xfe", b"\xc3", b"\xf8\x88\x80\x80\x80")) * 20
    packed = msgpack.packb(fields)
    marked = packed.replace(msgpack.packb(fields[2]), b"\xda" + struct.pack("!H", len(raw)) + raw)
    return frame(marked, pixels)


def _text_length(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    fields[draw.choice((2, 3, 4))] = "x" * draw.choice((199, 200, 201, 599, 600, 601, 999, 1_001))
    return frame(fields, pixels)


def _pixels(draw: random.Random, fields: Fields, pixels: bytes) -> bytes:
    return frame(fields, pixels[: draw.randint(0, len(pixels))] + bytes(draw.randint(0, 9)))


_MUTATIONS = (
    _lengths,
    _outcome,
    _sizes,
    _field,
    _shape,
    _nesting,
    _cut,
    _flip,
    _splice,
    _broken_text,
    _text_length,
    _pixels,
)


def _noise(draw: random.Random) -> bytes:
    body = draw.randbytes(draw.randint(0, 300))
    if draw.random() < 0.3:
        return body
    header = min(len(body), draw.randint(0, 300))
    return struct.pack("!II", header, len(body) - header) + body
