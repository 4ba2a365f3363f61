"""Description of the machine: hardware, system, libraries and load."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("numpy", "pillow", "opencv-python-headless", "matplotlib")


@dataclass(frozen=True, slots=True)
class Machine:
    """The properties of a machine that measurements depend on.

    Attributes:
        processor: Model name of the processor.
        cores: Number of cores that this process may use.
        memory_gb: Memory of the machine, in GiB.
        system: Versions of the kernel and of Python.
        libraries: Versions of the libraries that model code imports.
        user: ``root`` or an unprivileged user: isolation is built differently for each.
    """

    processor: str
    cores: int
    memory_gb: float
    system: str
    libraries: str
    user: str


def describe_machine() -> Machine:
    """Return this machine's description."""
    return Machine(
        processor=_field("/proc/cpuinfo", "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) / 2**20, 1),
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        libraries=", ".join(f"{name} {_version(name)}" for name in _LIBRARIES),
        user="root" if os.geteuid() == 0 else "an unprivileged user",
    )


def load() -> float:
    """Return the machine's load over the last minute."""
    return os.getloadavg()[0]


def _field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
