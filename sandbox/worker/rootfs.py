"""The minimal read-only root of sessions: Python, its libraries and three devices."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from . import kernel, landlock
from .hidden import hidden_paths, is_within

SESSION_FOLDER = "/session"
"""Parent of the mount point of each session's tmpfs; landlock's rule applies to it."""

PRIVATE_FOLDER = "/session/tmp"
"""Mount point of a session's tmpfs; ``/tmp`` is a link to it."""

DEVICES = ("/dev/null", "/dev/urandom", "/dev/random")
"""Devices available in /dev."""

_MOVED = "/libraries-in-tmp"  # for libraries under /tmp; each session links to them
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store")
_EXTRAS = ("/etc/ld.so.cache", "/etc/fonts", "/usr/share/fonts", "/usr/share/zoneinfo")
_EMPTY = "/.empty"  # mounted over hidden files
_STAGES = ("/mnt", "/srv", "/opt", "/home", "/tmp", "/usr/local")


def folders_of_libraries(base_prefix: str, paths: Iterable[str]) -> list[str]:
    """Return the folders that the interpreter needs, none inside another."""
    wanted = [*_SYSTEM, *_EXTRAS, f"{base_prefix}/lib", f"{base_prefix}/lib64", *paths]
    kept: list[str] = []
    for path in sorted({os.path.normpath(path) for path in wanted}, key=len):
        if os.path.exists(path) and not any(is_within(path, other) for other in kept):
            kept.append(path)
    return kept


def reading_rules(base_prefix: str, paths: Sequence[str]) -> list[tuple[str, int]]:
    """Return landlock rules for the same files, where no private root can be built.

    They apply to the devices and to whole folders. What is hidden in these is not excluded, as
    landlock has no exceptions: a second ruleset (`rules_around_hidden`) has to apply as well.
    """
    folders = folders_of_libraries(base_prefix, paths)
    rules = [(device, landlock.USE_DEVICE) for device in DEVICES]
    return rules + [(folder, landlock.READ) for folder in folders]


def rules_around_hidden(base_prefix: str, paths: Sequence[str]) -> list[tuple[str, int]]:
    """Return landlock rules for the same files except the hidden ones, some hundreds of rules."""
    folders = folders_of_libraries(base_prefix, paths)
    holes = hidden_paths(folders, paths)
    rules = [(device, landlock.USE_DEVICE) for device in DEVICES]
    for folder in folders:
        rules += _read_around(os.path.realpath(folder), holes)
    return rules


def build_root(sources: Sequence[str], paths: Sequence[str]) -> None:
    """Build the root from bind mounts of ``sources`` and change into it.

    The caller is in a mount namespace of its own, in which it may mount.

    Args:
        sources: Files and folders, mounted read-only under their own names.
        paths: Folders on ``sys.path``.
    """
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    stage = _free_folder(sources)
    kernel.mount("root", stage, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=1m")
    for source in sources:
        if _leads_into(source, sources):
            _copy_link(source, stage + _place(source))
        else:
            _show(source, stage + _place(source))
            kernel.make_read_only(stage + _place(source))
    for device in DEVICES:
        _show(device, stage + device)
        kernel.make_read_only(stage + device, devices=True)
    os.close(os.open(stage + _EMPTY, os.O_CREAT | os.O_WRONLY, 0o000))
    for path in hidden_paths(sources, paths):
        _hide(path, sources, stage)
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
    if os.path.isdir(_MOVED):
        for name in os.listdir(_MOVED):
            os.symlink(f"{_MOVED}/{name}", name)


def _leads_into(source: str, sources: Sequence[str]) -> bool:
    """Whether it is a link to something mounted anyway (``/lib`` to ``/usr/lib``)."""
    real = os.path.realpath(source)
    others = (other for other in sources if other != source)
    return os.path.islink(source) and any(is_within(real, other) for other in others)


def _place(source: str) -> str:
    """Return a source's path in the root: unchanged, except below ``/tmp``, which is private."""
    return _MOVED + source.removeprefix("/tmp") if is_within(source, "/tmp") else source


def _read_around(folder: str, holes: Sequence[str]) -> list[tuple[str, int]]:
    """Allow reading ``folder`` except the holes, entry by entry: landlock has no exceptions."""
    if folder in holes:
        return []
    if not any(is_within(hole, folder) for hole in holes):
        return [(folder, landlock.READ)]
    rules = [(folder, landlock.LIST)]  # imports list it; the names in a hole are not secret
    for entry in os.scandir(folder):
        if not entry.is_symlink():  # a rule would apply to what it leads to
            rules += _read_around(entry.path, holes)
    return rules


def _free_folder(sources: Sequence[str]) -> str:
    """Return a folder to stage the root in, whose content is not needed any more."""
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


def _hide(path: str, sources: Sequence[str], stage: str) -> None:
    """Cover a path in every mount that shows it."""
    for source in sources:
        real = os.path.realpath(source)
        if is_within(path, real) and not _leads_into(source, sources):
            _cover(stage + _place(source) + path.removeprefix(real), stage)


def _cover(path: str, stage: str) -> None:
    if os.path.isdir(path):
        kernel.mount("hidden", path, "tmpfs", kernel.MS_RDONLY, "mode=000,size=4k")
    else:
        kernel.mount(stage + _EMPTY, path, "", kernel.MS_BIND)


def _make_root_read_only() -> None:
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID
    kernel.mount("none", "/", "", flags | kernel.MS_NODEV)
