"""The kernels: where each comes from, and what its distribution sets at start."""

from __future__ import annotations

from dataclasses import dataclass

_DEBIAN = "http://deb.debian.org/debian"
_DEBIAN_SECURITY = "http://security.debian.org/debian-security"
_UBUNTU = "http://archive.ubuntu.com/ubuntu"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a distribution.

    Attributes:
        version: Its version, by which it is chosen.
        distribution: Distribution that ships it.
        archives: Lines of a sources list, each without its type and options.
        package: Package that depends on the newest image of this kernel.
        keyring: File of the archive's keys, in `KEYS`' package or on this machine.
        sysctls: Settings that the distribution makes at start, by their path under `/proc/sys`.
    """

    version: str
    distribution: str
    archives: tuple[str, ...]
    package: str
    keyring: str
    sysctls: tuple[tuple[str, str], ...] = ()


def _debian(version: str, number: int, *archives: str) -> Kernel:
    keyring = "debian-archive-keyring.gpg"
    return Kernel(version, f"Debian {number}", archives, "linux-image-cloud-amd64", keyring)


def _ubuntu(version: str, number: str, name: str, *sysctls: tuple[str, str]) -> Kernel:
    archives = (f"{_UBUNTU} {name} main", f"{_UBUNTU} {name}-updates main")
    keyring = "ubuntu-archive-keyring.gpg"
    return Kernel(version, f"Ubuntu {number}", archives, "linux-image-virtual", keyring, sysctls)


_ALL = (
    _ubuntu("5.4", "20.04", "focal"),
    _debian("5.10", 11, f"{_DEBIAN_SECURITY} bullseye-security main"),
    _ubuntu("5.15", "22.04", "jammy"),
    _debian("6.1", 12, f"{_DEBIAN} bookworm main"),
    _ubuntu("6.8", "24.04", "noble", ("kernel/apparmor_restrict_unprivileged_userns", "1")),
    _debian("6.12", 13, f"{_DEBIAN} trixie main"),
)
KERNELS = {kernel.version: kernel for kernel in _ALL}
"""Kernels by version."""

KEYS = (f"{_DEBIAN} trixie main", "ubuntu-keyring")
"""Archive and package of the keys of Ubuntu's archive, for machines that run Debian."""
