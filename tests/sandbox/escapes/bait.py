"""Bait on the host for attempts to find or damage, and checks of its integrity."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

import numpy
from PIL import Image

_IS_SHARED = "PYTEST_XDIST_WORKER" in os.environ  # other tests use shared memory too


class Bait:
    """A canary in a file, in the environment and in memory; ports that record connections."""

    def __init__(self) -> None:
        word = secrets.token_hex(16)
        self.canary = f"CANARY-{word}"
        self.digest = hashlib.sha256(word.encode()).hexdigest()
        os.environ["API_KEY"] = self.canary
        self.home = Path(tempfile.mkdtemp(prefix="bait-"))
        self.home.chmod(0o777)
        for name in ("canary.txt", "canary2.txt"):
            (self.home / name).write_text(self.canary)
            (self.home / name).chmod(0o666)
        Image.new("RGB", (2, 2)).save(self.home / "picture.png")
        self.abstract = f"bait-{word[:8]}"
        self._reached: list[str] = []
        self._servers = [
            self._listen(socket.AF_INET, ("127.0.0.1", 0)),
            self._listen(socket.AF_UNIX, "\0" + self.abstract),
            self._listen(socket.AF_UNIX, str(self.home / "socket")),
        ]
        (self.home / "socket").chmod(0o777)
        self._servers += [
            self._await_datagrams("\0" + self.abstract + "-datagrams"),
            self._await_datagrams(str(self.home / "datagrams")),
        ]
        (self.home / "datagrams").chmod(0o777)
        (self.home / "link").symlink_to(f"/nowhere/{self.canary}")
        self.port: int = self._servers[0].getsockname()[1]
        self._before = self._look()
        self._clock = time.time() - time.monotonic()

    def facts(self) -> dict[str, object]:
        """Return facts about the host that an adversary could know."""
        return {
            "home": str(self.home),
            "canary_file": str(self.home / "canary2.txt"),
            "digest": self.digest,
            "port": self.port,
            "abstract": self.abstract,
            "unix_path": str(self.home / "socket"),
            "datagrams": [f"\0{self.abstract}-datagrams", str(self.home / "datagrams")],
            "link": str(self.home / "link"),
            "host_pid": os.getpid(),
        }

    def complaints(self) -> list[str]:
        """Return the changes on the host: files, libraries, name, clock, limits, connections."""
        now = self._look()
        found = [f"{name} changed" for name, value in self._before.items() if now[name] != value]
        if abs(time.time() - time.monotonic() - self._clock) > 5:
            found.append("the clock changed")
        found += self._reached
        self._reached.clear()
        self._before = now
        return found

    def close(self) -> None:
        """Remove everything."""
        for server in self._servers:
            server.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def _look(self) -> dict[str, object]:
        library = Path(numpy.__file__)
        return {
            "the home": _state(self.home),
            "what is in the home": [_state(path) for path in sorted(self.home.iterdir())],
            "numpy": _state(library),
            "numpy's folder": _state(library.parent),
            "the standard library": _state(Path(os.__file__)),
            "the host name": os.uname().nodename,
            "the priority": os.getpriority(os.PRIO_PROCESS, 0),
            "shared memory": [] if _IS_SHARED else sorted(os.listdir("/dev/shm")),
        }

    def _listen(self, family: socket.AddressFamily, address: object) -> socket.socket:
        server = socket.socket(family, socket.SOCK_STREAM)
        server.bind(address)  # type: ignore[arg-type]
        server.listen()
        threading.Thread(target=self._note_callers, args=(server,), daemon=True).start()
        return server

    def _await_datagrams(self, address: str) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        server.bind(address)
        threading.Thread(target=self._note_datagrams, args=(server,), daemon=True).start()
        return server

    def _note_datagrams(self, server: socket.socket) -> None:
        while True:
            try:
                data = server.recv(64)
            except OSError:
                return
            if not data:  # shut down
                return
            self._reached.append(f"a datagram reached {server.getsockname()!r}")

    def _note_callers(self, server: socket.socket) -> None:
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            self._reached.append(f"a caller reached {server.getsockname()!r}")
            caller.close()


def _state(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    text = path.read_bytes() if path.suffix == ".txt" else b""
    return (path.name, status.st_mode, status.st_uid, status.st_mtime_ns, status.st_size, text)
