"""The first process of the virtual machine: mounts, the suite in every place, power off.

Everything that the suite writes to standard output goes to the second serial line.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

from codedance.sandbox.worker import kernel

_MS_MOVE = 8192
_IFF_UP, _SIOCGIFFLAGS, _SIOCSIFFLAGS = 1, 0x8913, 0x8914
_RESTART = 0x1234567  # the machine ends at its first restart
_MOUNTS = (
    ("proc", "/proc", "proc", ""),
    ("sysfs", "/sys", "sysfs", ""),
    ("devtmpfs", "/dev", "devtmpfs", ""),
    ("tmpfs", "/dev/shm", "tmpfs", "mode=1777"),
    ("tmpfs", "/tmp", "tmpfs", "mode=1777"),
    ("tmpfs", "/run", "tmpfs", "mode=755"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", ""),
)
USERS = {"root": [], "nobody": ["-m", "sandbox.escapes", "as-nobody", sys.executable, "-B"]}
"""Words before those of the suite, by user."""


def main() -> None:
    """Run the suite and end the machine, whatever happens."""
    child = os.fork()
    if child:
        while os.wait()[0] != child:  # orphans too
            pass
        os.sync()
        ctypes.CDLL(None).reboot(_RESTART)
    try:
        _set_up()
        _run_suite()
    finally:
        os._exit(0)


def _set_up() -> None:
    """Mount what a distribution mounts, and set what it sets."""
    # The root cannot be left by pivot_root while it is the kernel's own first file system.
    Path("/mnt").mkdir(exist_ok=True)
    kernel.mount("/", "/mnt", "", kernel.MS_BIND)
    os.chdir("/mnt")
    kernel.mount(".", "/", "", _MS_MOVE)
    os.chroot(".")
    for source, target, kind, options in _MOUNTS:
        Path(target).mkdir(parents=True, exist_ok=True)
        kernel.mount(source, target, kind, 0, options)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, asked)[:18])[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP))
    for name, value in _options("sysctl"):
        Path("/proc/sys", name).write_text(value)
    os.chdir("/opt/checkout/tests")


def _run_suite() -> None:
    """Run the suite in every requested place."""
    for slowness, _ in _options("slowness"):
        os.environ["CODEDANCE_ESCAPES_SLOWNESS"] = slowness
    with open("/dev/ttyS1", "wb", buffering=0) as line:
        for place, user in _options("place"):
            command = [sys.executable, "-B", *USERS[user]]
            command += ["-m", "kernels.verdicts", place, user, *dict(_options("attempt"))]
            subprocess.run(command, stdout=line, check=False)


def _options(kind: str) -> list[tuple[str, str]]:
    """Return the pairs of a kind on the kernel's command line, ``codedance.KIND=NAME:VALUE``."""
    words = Path("/proc/cmdline").read_text(encoding="utf-8").split()
    prefix = f"codedance.{kind}="
    found = [word.removeprefix(prefix) for word in words if word.startswith(prefix)]
    return [tuple(word.split(":", 1)) for word in found]


if __name__ == "__main__":
    main()
