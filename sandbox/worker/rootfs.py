"""The small read-only root that sessions see: Python, its libraries, three devices, no more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from . import kernel

SESSION_FOLDER = "/session"
"""Holds the mount point of each session's own tmpfs; landlock's rule stands on it."""

PRIVATE_FOLDER = "/session/tmp"
"""Where a session's tmpfs is mounted; ``/tmp`` leads here."""

DEVICES = ("/dev/null", "/dev/urandom", "/dev/random")
"""All of /dev that there is."""

HIDDEN = ("codedance",)
"""Packages not shown: with ours, model code could draw the tasks again and look up the answers."""

_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store")
_EXTRAS = ("/etc/ld.so.cache", "/etc/fonts", "/usr/share/fonts", "/usr/share/zoneinfo")
_STAGES = ("/mnt", "/srv", "/opt", "/home", "/tmp", "/usr/local")


def library_folders(base_prefix: str, paths: Iterable[str]) -> list[str]:
    """Give the folders that the interpreter needs, none inside another."""
    wanted = [*_SYSTEM, *_EXTRAS, f"{base_prefix}/lib", f"{base_prefix}/lib64", *paths]
    kept: list[str] = []
    for path in sorted({os.path.normpath(path) for path in wanted}, key=len):
        if os.path.exists(path) and not any(is_within(path, other) for other in kept):
            kept.append(path)
    return kept


def build_root(sources: Sequence[str], paths: Sequence[str]) -> None:
    """Build the root out of bind mounts of ``sources`` and move into it.

    The caller is in a mount namespace of its own, in which it may mount.

    Args:
        sources: Files and folders, shown read-only under their own names.
        paths: Folders on ``sys.path``; packages of ours in them are covered.
    """
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    stage = _free_folder(sources)
    kernel.mount("root", stage, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=1m")
    for source in sources:
        if os.path.islink(source):
            _copy_link(source, stage + source)
        else:
            _show(source, stage + source)
            kernel.make_read_only(stage + source)
    for device in DEVICES:
        _show(device, stage + device)
        kernel.make_read_only(stage + device, devices=True)
    for path in paths:
        for name in HIDDEN:
            _cover(f"{stage}{path}/{name}")
    os.makedirs(stage + PRIVATE_FOLDER)
    os.symlink(PRIVATE_FOLDER[1:], stage + "/tmp")
    kernel.pivot_into(stage)
    _make_root_read_only()


def mount_private_folder(disk_mb: int) -> None:
    """Mount this session's own tmpfs and make it the current folder."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    options = f"mode=700,size={disk_mb}m,nr_inodes={1024 + 64 * disk_mb}"
    kernel.mount("tmp", PRIVATE_FOLDER, "tmpfs", flags, options)
    os.chdir(PRIVATE_FOLDER)


def is_within(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _free_folder(sources: Sequence[str]) -> str:
    """Find a folder to stage the root in that covers nothing we still need."""
    for stage in _STAGES:
        if os.path.isdir(stage) and not any(is_within(source, stage) for source in sources):
            return stage
    raise OSError(f"no free folder among {', '.join(_STAGES)} to stage the sandbox's root in")


def _show(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.mount(source, target, "", kernel.MS_BIND | kernel.MS_REC)


def _copy_link(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.symlink(os.readlink(source), target)


def _cover(folder: str) -> None:
    if os.path.isdir(folder):
        kernel.mount("hidden", folder, "tmpfs", kernel.MS_RDONLY, "mode=000,size=4k")


def _make_root_read_only() -> None:
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID
    kernel.mount("none", "/", "", flags | kernel.MS_NODEV)
