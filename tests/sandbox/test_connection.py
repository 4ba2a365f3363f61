"""The host's clock is checked however the bytes of a frame arrive."""

import socket

import pytest
from codedance.sandbox.host.connection import Connection
from codedance.sandbox.host.frames import FrameError


class Late(Exception):  # noqa: N818 - an event of these tests
    pass


class Patience:
    """A clock that is always due; the sender has a further byte ready whenever it is read."""

    def __init__(self, looks, sender):
        self.looks, self.sender = looks, sender

    @property
    def seconds_to_look(self):
        self.sender.send(b"x")
        return 0.0

    def look(self):
        self.looks -= 1
        if self.looks == 0:
            raise Late


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    yield connection, theirs
    connection.close()
    theirs.close()


def test_bytes_that_come_one_by_one_do_not_keep_the_host_from_its_clock(pair):
    connection, theirs = pair
    theirs.send(b"x")
    with pytest.raises(Late):
        connection.receive(1_000, Patience(5, theirs))


def test_pixels_that_come_one_by_one_do_not_either(pair):
    connection, theirs = pair
    theirs.send(b"x")
    with pytest.raises(Late):
        connection.receive_into(bytearray(1_000), Patience(5, theirs))


def test_a_whole_frame_that_is_already_there_is_accepted_even_when_late(pair):
    connection, theirs = pair
    theirs.sendall(b"x" * 90_000)
    assert connection.receive(8, Patience(1, theirs)) == b"x" * 8
    assert len(connection.receive(89_992, Patience(1, theirs))) == 89_992


def test_out_of_band_bytes_end_the_wait(pair):
    """They make the socket ready although there is nothing to read."""
    connection, theirs = pair
    try:
        theirs.send(b"!", socket.MSG_OOB)
    except OSError:
        pytest.skip("this kernel has no out-of-band data on Unix sockets")
    with pytest.raises(FrameError, match="out-of-band"):
        connection.receive(8, Patience(1_000, theirs))
    assert not connection.is_quiet()
