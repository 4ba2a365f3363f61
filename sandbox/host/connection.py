"""The host's end of a session's socket: exact byte counts, with time limits."""

from __future__ import annotations

import select
import socket
from typing import Protocol

from .frames import FrameError

_CHUNK = 131_072  # a whole header, where it is there
_OUT_OF_BAND = select.POLLPRI
_NEWS = select.POLLIN | select.POLLHUP | select.POLLERR | _OUT_OF_BAND


class Watch(Protocol):
    """Clock of a wait; raises an exception to end it."""

    @property
    def seconds_to_look(self) -> float:
        """Seconds to wait for data until `look` is due."""
        ...

    def look(self) -> None:
        """Check a wait that continues; raise to end it."""
        ...


class Connection:
    """A non-blocking stream socket; data received early is kept for the next call.

    Args:
        stream: Connected socket, closed together with this object.
    """

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self._stream = stream
        self._early = bytearray()
        self._poller = select.poll()
        self._poller.register(stream, _NEWS)

    def send(self, data: bytes, watch: Watch) -> None:
        """Send all of ``data``."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._stream.send(view) :]
            except BlockingIOError:
                self._poller.modify(self._stream, select.POLLOUT)
                self._wait(watch)
                self._poller.modify(self._stream, _NEWS)

    def receive(self, count: int, watch: Watch) -> bytearray:
        """Wait for exactly ``count`` bytes.

        Raises:
            FrameError: The other end closed the connection before.
        """
        while len(self._early) < count:
            self._wait(watch)
            try:
                more = self._stream.recv(_CHUNK)
            except BlockingIOError:
                continue
            if not more:
                raise FrameError("the connection was closed")
            self._early += more
            if len(self._early) < count:
                _look_if_due(watch)
        data = self._early[:count]
        del self._early[:count]
        return data

    def receive_into(self, memory: bytearray, watch: Watch) -> None:
        """Wait for as many bytes as ``memory`` holds.

        Raises:
            FrameError: The other end closed the connection before.
        """
        start = min(len(memory), len(self._early))
        memory[:start] = self._early[:start]
        del self._early[:start]
        view = memoryview(memory)[start:]
        while view:
            try:
                got = self._stream.recv_into(view)
            except BlockingIOError:
                self._wait(watch)
            else:
                if got == 0:
                    raise FrameError("the connection was closed")
                view = view[got:]
            if view:
                _look_if_due(watch)

    def is_quiet(self) -> bool:
        """Whether no received data is pending."""
        return not self._early and not self._poller.poll(0)

    def close(self) -> None:
        """Close the socket."""
        self._stream.close()

    def _wait(self, watch: Watch) -> None:
        """Wait until the socket is ready; data that is already there is accepted even when late.

        Raises:
            FrameError: There are out-of-band bytes, which make a socket ready without data.
        """
        while not (ready := self._poller.poll(1000 * watch.seconds_to_look + 1)):
            watch.look()
        if ready[0][1] & _OUT_OF_BAND:
            raise FrameError("out-of-band data")


def _look_if_due(watch: Watch) -> None:
    """Check the clock between the parts of a frame, which may arrive byte by byte."""
    if watch.seconds_to_look <= 0:
        watch.look()
