"""The docker backend: the same zygote inside one hardened container, dockerd not in the data path.

The container connects to a socket of the host in a folder mounted read-only. Over it the worker
receives its log, its configuration, its requests, the sessions' sockets and the sealed images
(SCM_RIGHTS), and returns handles of the sessions' processes. The container ends when that socket
closes: with the sandbox, or with the trainer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Sequence

from ..host.worker_process import Log
from ..host.zygote import Zygote, ZygotePlan
from ..types import Limits, SandboxError
from .engine import DEFAULT_IMAGE, Engine, StartedContainer

_MEET_SECONDS = 30.0
_LOOK_SECONDS = 0.5
_END_SECONDS = 10.0
_CREDENTIALS = struct.Struct("3i")
_CONTAINER_ISOLATION = (
    "in a Docker container (no network, read-only, no capabilities, no new privileges, "
    "bounded memory and processes)"
)


class Container:
    """A container that runs a zygote.

    Args:
        image: Name of the image.
        limits: Limits of every session; the container's own are derived from them.

    Raises:
        SandboxError: The engine refuses, or the container does not connect to the socket.
    """

    def __init__(self, image: str, limits: Limits) -> None:
        self._log = Log()
        folder = tempfile.mkdtemp(prefix="codedance-meet-")
        try:
            os.chmod(folder, 0o711)
            with (
                contextlib.closing(Engine()) as engine,
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
            ):
                engine.remove_stale()
                engine.check_image(image)
                listener.bind(f"{folder}/control")
                os.chmod(f"{folder}/control", 0o666)  # the folder's name is the secret
                listener.listen()
                self._container = engine.start(image, folder, limits)
                self.process_id = self._container.process_id
                self.control = self._meet(listener, engine)
            socket.send_fds(self.control, [b"log"], [self._log.descriptor])
        except BaseException:
            self._log.close()
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def words(self) -> str:
        """Return the end of the zygote's standard error."""
        return self._log.words()

    def end(self) -> None:
        """Wait for the container to end after its socket closed; remove it if it does not."""
        self._log.close()
        with contextlib.suppress(SandboxError), contextlib.closing(Engine()) as engine:
            engine.remove(self._container.id, wait_seconds=_END_SECONDS)

    def _meet(self, listener: socket.socket, engine: Engine) -> socket.socket:
        """Accept the connection of the container's first process, and no other."""
        try:
            listener.settimeout(_LOOK_SECONDS)
            deadline = time.monotonic() + _MEET_SECONDS
            while time.monotonic() < deadline:
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    if not engine.is_running(self._container.id):
                        raise SandboxError("the container ended before its worker began") from None
                    continue
                if _peer_process_id(connection) == self.process_id:
                    return connection
                connection.close()
            raise SandboxError(_unmet(self._container))
        except BaseException:
            engine.remove(self._container.id)
            raise


def starter(image: str | None) -> Callable[[ZygotePlan], Zygote]:
    """Return a function that starts a zygote in a container of ``image``."""

    def start(plan: ZygotePlan) -> Zygote:
        zygote = Zygote(plan, Container(image or DEFAULT_IMAGE, plan.limits))
        zygote.isolation = f"{_CONTAINER_ISOLATION}: {zygote.isolation}"
        return zygote

    return start


def container_plan(libraries: Sequence[str], limits: Limits) -> ZygotePlan:
    """Return the plan of a zygote under the image's own interpreter."""
    return ZygotePlan(interpreter=None, libraries=tuple(libraries), limits=limits, isolation="auto")


def _peer_process_id(connection: socket.socket) -> int:
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[0])


def _unmet(container: StartedContainer) -> str:
    return (
        f"container {container.id[:12]} did not come to the socket within {_MEET_SECONDS:g} s; "
        "does the engine run on this machine, and see its files? An engine in a virtual machine "
        "(Docker Desktop) or on another host does not: run codedance itself in a container there"
    )
