"""The host's decoder on any input: a reply within the limits, or FrameError."""

import struct

import msgpack
import pytest
from codedance.sandbox import Limits, Outcome
from codedance.sandbox.host.frames import FrameError, decode_lengths, decode_reply, encode_block
from hypothesis import example, given, settings
from hypothesis import strategies as st

LIMITS = Limits(output_characters=50, images=3, image_pixels=100)
VALID = [1, "ok", "out", "err", None, [[2, 3], [1, 1]]]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=True)
    | st.text(max_size=80)
    | st.binary(max_size=80)
    | st.sampled_from(["ok", "error", "timeout", "memory"]),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


def judge(header, blob_bytes):
    """Decode a frame and check that an accepted reply is within the limits."""
    try:
        reply = decode_reply(header, blob_bytes, LIMITS)
    except FrameError:
        return None
    assert reply.blob_bytes == blob_bytes <= 400
    assert len(reply.sizes) <= 3
    assert all(width > 0 and height > 0 for width, height in reply.sizes)
    assert len(reply.stdout) <= 450
    assert len(reply.stderr) <= 450
    assert (reply.error is None) == (reply.outcome is Outcome.OK)
    return reply


def test_a_valid_frame_is_decoded_exactly():
    reply = decode_reply(msgpack.packb(VALID), 28, LIMITS)
    assert (reply.turn, reply.outcome, reply.stdout, reply.stderr) == (1, Outcome.OK, "out", "err")
    assert reply.sizes == ((2, 3), (1, 1))


@given(st.binary(max_size=400), st.integers(0, 400))
def test_noise_is_rejected(header, blob_bytes):
    judge(header, blob_bytes)


@given(st.lists(values, max_size=8), st.integers(0, 400))
def test_any_list_of_values_is_accepted_or_rejected(message, blob_bytes):
    judge(msgpack.packb(message), blob_bytes)


@settings(max_examples=300)
@given(
    fields=st.dictionaries(st.integers(0, 5), values, max_size=3),
    cut=st.integers(0, 60),
    flips=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3),
    blob_bytes=st.sampled_from([0, 28, 400]),
)
@example(fields={}, cut=0, flips=[], blob_bytes=28)
@example(fields={5: [[True, True]]}, cut=0, flips=[], blob_bytes=4)
@example(fields={5: [[2**40, 2**40]]}, cut=0, flips=[], blob_bytes=4)
def test_mutations_of_a_valid_frame_are_accepted_or_rejected(fields, cut, flips, blob_bytes):
    message = [fields.get(index, value) for index, value in enumerate(VALID)]
    header = bytearray(msgpack.packb(message))
    for position, value in flips:
        header[position % len(header)] = value
    judge(bytes(header[: len(header) - cut] if cut else header), blob_bytes)


@given(st.binary(min_size=8, max_size=8))
def test_lengths_are_within_the_limits_or_rejected(prefix):
    try:
        header_bytes, blob_bytes = decode_lengths(prefix, LIMITS)
    except FrameError:
        return
    assert header_bytes < 20_000
    assert blob_bytes <= 400


@pytest.mark.parametrize("bomb", [b"\x91" * 5_000, b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff" * 900])
def test_a_msgpack_bomb_is_rejected_immediately(bomb):
    with pytest.raises(FrameError):
        decode_reply(bomb, 0, LIMITS)


@given(st.text(max_size=50))
def test_any_code_can_be_framed(code):
    frame = encode_block(3, code, 1.5, 2.5)
    header_bytes, blob_bytes = struct.unpack("!II", frame[:8])
    turn, source, wall, cpu = msgpack.unpackb(frame[8:])
    assert (header_bytes, blob_bytes) == (len(frame) - 8, 0)
    assert (turn, source.decode("utf-8", "surrogatepass"), wall, cpu) == (3, code, 1.5, 2.5)
