"""Frames on a session's socket: two lengths, a msgpack header, then raw bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

LENGTHS = struct.Struct("!II")
"""Prefix of every frame: header length and blob length, in bytes."""

PIXEL_BYTES = 4
"""Bytes per pixel: red, green, blue and an unused one, as Pillow stores them."""

MESSAGE_BYTES = 65_536
"""Maximum message size on the zygote's control socket, in both directions."""


class Channel:
    """The session's end of its socket: blocking, one frame at a time.

    Args:
        connection: Stream socket from the host.
        pack: msgpack's ``packb``, bound before model code can replace it.
        unpack: msgpack's ``unpackb``, bound likewise.
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
        """Send one frame; the host receives the blob while it is produced.

        Args:
            header: Value that msgpack can encode.
            blob_bytes: Size of the blob, in bytes.
            blob: Parts of the blob.
        """
        packed = self._pack(header)
        self._connection.sendall(LENGTHS.pack(len(packed), blob_bytes) + packed)
        try:
            for part in blob:
                self._connection.sendall(part)
        except MemoryError as error:  # half a frame was sent: no other may follow
            raise EOFError("no memory to send a picture") from error

    def receive(self) -> Any:  # noqa: ANN401 - whatever msgpack decodes
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
