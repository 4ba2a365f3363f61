"""A virtual machine by qemu, without network or disk; its verdicts come over a serial line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .download import MissingError
from .table import Kernel

_QEMU = "qemu-system-x86_64"
_LOOK_SECONDS = 0.5
_OPTIONS = "-nodefaults -no-reboot -display none -nic none -cpu max -smp 2"
_SLOWNESS = 20  # of an emulated processor, beside other work
_PARAMETERS = "console=ttyS0 loglevel=4 panic=-1 mitigations=off random.trust_cpu=on"


@dataclass(frozen=True, slots=True)
class Machine:
    """Settings of the virtual machine.

    Attributes:
        kernel: Kernel to start.
        boot_image: File of the kernel.
        root: File system, as the kernel unpacks it into memory.
        console: File for the kernel's messages and the suite's errors.
        is_emulated: Whether the processor is emulated, which needs nothing of the host but time.
        memory_mb: Memory; the file system takes half a gigabyte of it.
        timeout_seconds: Longest time of a run.
    """

    kernel: Kernel
    boot_image: Path
    root: Path
    console: Path
    is_emulated: bool = True
    memory_mb: int = 3072
    timeout_seconds: float = 7_200.0

    def run(
        self, places: Sequence[tuple[str, str]], attempts: Sequence[str] = ()
    ) -> Iterator[dict[str, Any]]:
        """Start the machine and yield what the suite says, until the machine ends.

        Raises:
            MissingError: There is no qemu.
            TimeoutError: It took longer than ``timeout_seconds``.
        """
        if shutil.which(_QEMU) is None:
            raise MissingError(f"{_QEMU} is not installed: apt-get install qemu-system-x86")
        options = [f"place={place}:{user}" for place, user in places]
        options += [f"attempt={number}:" for number in attempts]
        options += [f"slowness={_SLOWNESS}:"] if self.is_emulated else []
        options += [f"sysctl={name}:{value}" for name, value in self.kernel.sysctls]
        with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
            said = Path(folder) / "said"
            said.touch()
            with subprocess.Popen(self._command(options, said)) as process:
                try:
                    yield from self._follow(process, said)
                finally:
                    process.kill()

    def _command(self, options: Sequence[str], said: Path) -> list[str]:
        words = " ".join([_PARAMETERS, *(f"codedance.{option}" for option in options)])
        files = ["-kernel", str(self.boot_image), "-initrd", str(self.root), "-append", words]
        lines = ["-serial", f"file:{self.console}", "-serial", f"file:{said}"]
        accelerator = "tcg,thread=multi" if self.is_emulated else "kvm"
        sizes = ["-accel", accelerator, "-m", str(self.memory_mb)]
        return [_QEMU, *_OPTIONS.split(), *sizes, *files, *lines]

    def _follow(self, process: subprocess.Popen[bytes], said: Path) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + self.timeout_seconds
        with said.open("rb") as file:
            rest = b""
            while True:
                is_over = process.poll() is not None
                *lines, rest = (rest + file.read()).split(b"\n")
                yield from (json.loads(line) for line in lines if line.startswith(b"{"))
                if is_over:
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no end after {self.timeout_seconds:.0f} s")
                time.sleep(_LOOK_SECONDS)


def has_kvm() -> bool:
    """Return whether the processor runs guests itself; a device file alone does not say so."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    is_there = any(f" {flag} " in flags for flag in ("vmx", "svm"))
    return is_there and os.access("/dev/kvm", os.R_OK | os.W_OK)
