"""The host's decoder on thousands of frames: a reply or FrameError, within its limits."""

import inspect
import sys
import time
import tracemalloc
from collections import Counter
from types import CodeType

import pytest
from codedance.sandbox import Outcome
from codedance.sandbox.host import frames
from codedance.sandbox.host.frames import FrameError, decode_lengths, decode_message, decode_reply
from codedance.sandbox.host.shown_pictures import as_picture, picture_memory
from codedance.sandbox.worker.framing import LENGTHS, PIXEL_BYTES

from .frame_mutations import LIMITS, frame, valid
from .frame_mutations import frames as made_frames

_MOST_MEMORY = 4 << 20
"""Memory limit of one frame: its bytes, a decoded header of at most 10 kB, 4,000 pixels twice."""
_LONGEST_SECONDS = 1.0


def receive(data):
    """Decode a frame's bytes like the host; return the result."""
    if len(data) < LENGTHS.size:
        return "cut off"
    try:
        header_bytes, blob_bytes = decode_lengths(data[: LENGTHS.size], LIMITS)
        header = data[LENGTHS.size : LENGTHS.size + header_bytes]
        pixels = data[LENGTHS.size + header_bytes :][:blob_bytes]
        if len(header) < header_bytes:
            return "cut off"
        decode_message(header, LIMITS)
        reply = decode_reply(header, blob_bytes, LIMITS)
    except FrameError:
        return "refused"
    check(reply, blob_bytes)
    if len(pixels) < blob_bytes:
        return "cut off"
    for size in reply.sizes:
        memory = picture_memory(size)
        memory[:], pixels = pixels[: len(memory)], pixels[len(memory) :]
        assert as_picture(memory, size).convert("L").size == size
    assert not pixels
    return "taken"


def check(reply, blob_bytes):
    """Check that an accepted reply is within the limits and has the declared types."""
    assert type(reply.turn) is int
    assert isinstance(reply.outcome, Outcome)
    assert reply.outcome is not Outcome.KILLED
    assert max(len(reply.stdout), len(reply.stderr)) <= LIMITS.output_characters + 400
    assert (reply.error is None) == (reply.outcome is Outcome.OK)
    assert reply.blob_bytes == blob_bytes <= LIMITS.image_pixels * PIXEL_BYTES
    assert len(reply.sizes) <= LIMITS.images
    for text in (reply.stdout, reply.stderr, reply.error or ""):
        text.encode()  # no lone surrogate gets into a store or a tokenizer


@pytest.mark.parametrize(
    ("seed", "count"),
    [(0, 5_000), pytest.param(1, 100_000, marks=pytest.mark.slow)],
)
def test_frames_are_accepted_or_rejected(seed, count):
    ends = Counter()
    slowest = 0.0
    for data in made_frames(seed, count):
        started = time.perf_counter()
        ends[receive(data)] += 1
        slowest = max(slowest, time.perf_counter() - started)
    assert ends.total() == count
    assert ends["taken"] > 0.1 * count  # else the fuzzer would test only the first check
    assert ends["refused"] > 0.3 * count
    assert slowest < _LONGEST_SECONDS


def test_no_frame_needs_more_memory_than_its_limit():
    data = [*made_frames(2, 3_000)]
    tracemalloc.start()
    try:
        for one in data:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            receive(one)
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < _MOST_MEMORY
    finally:
        tracemalloc.stop()


def test_frames_execute_nearly_every_line_of_the_decoder():
    decoder = [
        function.__code__
        for name, function in inspect.getmembers(frames, inspect.isfunction)
        if function.__module__ == frames.__name__ and name != "encode_block"
    ]
    lines = {line for code in decoder for line in lines_of(code)}
    seen = set()

    def trace(frame, event, _):
        if frame.f_code.co_filename != frames.__file__:
            return None
        seen.add(frame.f_lineno)
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        for data in made_frames(3, 3_000):
            receive(data)
    finally:
        sys.settrace(previous)
    missed = sorted(lines - seen)
    assert len(missed) <= 0.05 * len(lines), f"lines {missed} of frames.py are never reached"


def lines_of(code: CodeType):
    """Return the lines of a function's body."""
    return {line for _, _, line in code.co_lines() if line and line != code.co_firstlineno}


def test_the_fuzzers_valid_frames_are_valid():
    import random

    draw = random.Random(4)
    assert {receive(frame(*valid(draw))) for _ in range(200)} == {"taken"}
