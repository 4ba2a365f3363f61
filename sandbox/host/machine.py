"""What this machine lacks for full isolation, with the commands that fix it."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

_SETTINGS = "proc/sys"
_OLDEST_LANDLOCK = (5, 13)
_PROFILE = "/etc/apparmor.d/codedance-worker"


@dataclass(frozen=True, slots=True)
class Lack:
    """A missing capability; ``remedy`` may be several lines of commands, used as written."""

    what: str
    remedy: str


def find_lacks(root: Path = Path("/"), *, python: str | None = None) -> tuple[Lack, ...]:
    """Return what prevents full isolation here, as far as the system reports it.

    Args:
        root: Folder that contains ``proc`` and ``sys``.
        python: Interpreter of the worker, for which the AppArmor profile is written; None for
            this one.
    """
    found = (
        _user_namespaces_off(root),
        _unprivileged_clone_off(root),
        _app_armor(root, os.path.realpath(python or sys.executable)),
        _container(root),
        _no_landlock(root),
        _no_seccomp(root),
    )
    return tuple(lack for lack in found if lack is not None)


def describe_lacks(lacks: tuple[Lack, ...]) -> str:
    """Return a message that lists them with their remedies."""
    if not lacks:
        return (
            "the system gives no reason; a container engine or a security module may refuse "
            "user namespaces: see docs/sandbox.md"
        )
    return "\n".join(f"{lack.what}. To fix it:\n{lack.remedy}" for lack in lacks)


def app_armor_profile(executable: str) -> str:
    """Return an AppArmor profile that only allows ``executable`` user namespaces."""
    return (
        "abi <abi/4.0>,\n"
        "include <tunables/global>\n"
        f"profile codedance-worker {executable} flags=(unconfined) {{\n"
        "  userns,\n"
        "}\n"
    )


def _read(root: Path, name: str) -> str | None:
    try:
        return (root / name).read_text().strip()
    except OSError:
        return None


def _setting_command(name: str, value: int) -> str:
    file = "/etc/sysctl.d/60-codedance.conf"
    return f"  echo '{name} = {value}' | sudo tee -a {file}\n  sudo sysctl -p {file}"


def _user_namespaces_off(root: Path) -> Lack | None:
    if _read(root, f"{_SETTINGS}/user/max_user_namespaces") != "0":
        return None
    what = "user namespaces are switched off (user.max_user_namespaces = 0)"
    return Lack(what, _setting_command("user.max_user_namespaces", 15000))


def _unprivileged_clone_off(root: Path) -> Lack | None:
    if _read(root, f"{_SETTINGS}/kernel/unprivileged_userns_clone") != "0":
        return None
    what = "only root may make user namespaces (kernel.unprivileged_userns_clone = 0)"
    return Lack(what, _setting_command("kernel.unprivileged_userns_clone", 1))


def _app_armor(root: Path, executable: str) -> Lack | None:
    """Check Ubuntu 24.04 and later, where a profile for the program is the supported way."""
    name = f"{_SETTINGS}/kernel/apparmor_restrict_unprivileged_userns"
    if _read(root, name) in (None, "0"):
        return None
    return Lack(
        "AppArmor restricts user namespaces "
        "(kernel.apparmor_restrict_unprivileged_userns = 1, as in Ubuntu 24.04)",
        f"  sudo tee {_PROFILE} <<'END'\n{app_armor_profile(executable)}END\n"
        f"  sudo apparmor_parser -r {_PROFILE}",
    )


def _container(root: Path) -> Lack | None:
    """Check for a default container profile, which refuses unshare without CAP_SYS_ADMIN."""
    markers = (".dockerenv", "run/.containerenv", "var/run/secrets/kubernetes.io")
    if not any((root / marker).exists() for marker in markers):
        return None
    if _status(root).get("Seccomp") != "2":
        return None
    return Lack(
        "this is a container whose seccomp profile refuses user namespaces",
        "  docker run --security-opt seccomp=unconfined …   (Kubernetes: seccompProfile: "
        "{type: Unconfined})\n"
        "  what model code runs in keeps the sandbox's own, stricter filter",
    )


def _no_landlock(root: Path) -> Lack | None:
    modules = _read(root, "sys/kernel/security/lsm")
    if modules is None or "landlock" in modules.split(","):
        return None
    if _kernel_version() < _OLDEST_LANDLOCK:
        return Lack(
            f"Linux {platform.release()} has no landlock", "  a kernel of 5.13 or later has it"
        )
    return Lack(
        "landlock is not switched on",
        f"  add lsm=landlock,{modules} to the kernel's command line, and start again",
    )


def _no_seccomp(root: Path) -> Lack | None:
    status = _status(root)
    if not status or "Seccomp" in status:
        return None
    return Lack("the kernel has no seccomp", "  it needs CONFIG_SECCOMP_FILTER")


def _status(root: Path) -> dict[str, str]:
    lines = (_read(root, "proc/self/status") or "").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _kernel_version() -> tuple[int, ...]:
    numbers = platform.release().split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())
