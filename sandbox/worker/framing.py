"""Frames on a session's socket: two lengths, a msgpack header, then raw bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

LENGTHS = struct.Struct("!II")
"""Header length and blob length, in bytes; the prefix of every frame."""

PIXEL_BYTES = 4
"""Of a picture's pixel: red, green, blue and one that means nothing, as Pillow keeps them."""

MESSAGE_BYTES = 65_536
"""Longest message on the zygote's control socket, either way."""


class Channel:
    """The session's end of its socket: blocking, one frame at a time.

    Args:
        connection: The stream socket that the host handed over.
        pack: msgpack's ``packb``, bound before model code can replace it.
        unpack: msgpack's ``unpackb``.
    """

    def __init__(
        self,
        connection: socket.socket,
        pack: Callable[[Any], bytes],
        unpack: Callable[[bytes], Any],
    ) -> None:
        self._connection = connection
        self._pack = pack
        self._unpack = unpack

    def send(self, header: object, blob_bytes: int = 0, blob: Iterable[bytes] = ()) -> None:
        """Send one frame; the host takes in what comes of its blob while the rest is made.

        Args:
            header: What msgpack can hold.
            blob_bytes: Length of the blob.
            blob: Its parts.
        """
        packed = self._pack(header)
        self._connection.sendall(LENGTHS.pack(len(packed), blob_bytes) + packed)
        try:
            for part in blob:
                self._connection.sendall(part)
        except MemoryError as error:  # half a frame is out: no other may follow
            raise EOFError("no memory to send a picture") from error

    def receive(self) -> Any:  # noqa: ANN401 - what msgpack gives
        """Wait for the next frame's header; the host sends no blobs.

        Raises:
            EOFError: The host closed the connection.
        """
        header_length, _ = LENGTHS.unpack(self._exactly(LENGTHS.size))
        return self._unpack(self._exactly(header_length))

    def _exactly(self, count: int) -> bytes:
        data = self._connection.recv(count)
        while len(data) < count:
            more = self._connection.recv(count - len(data))
            if not more:
                raise EOFError("the host closed the session")
            data += more
        return data
