"""File access by landlock: only what a rule allows, as far as this kernel can enforce it."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from .kernel import call

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_MAKE_CHARACTER_DEVICE, _MAKE_SOCKET, _MAKE_BLOCK_DEVICE = 1 << 6, 1 << 9, 1 << 11
_FIRST_ABI = (1 << 13) - 1  # every file right of ABI 1
_ALL_TCP = 0b11
_ALL_SCOPES = 0b11

LIST = _READ_FOLDER
READ = _READ_FILE | _READ_FOLDER
WRITE = READ | (
    (_FIRST_ABI | _REFER | _TRUNCATE)
    & ~(_EXECUTE | _MAKE_CHARACTER_DEVICE | _MAKE_SOCKET | _MAKE_BLOCK_DEVICE)
)
USE_DEVICE = READ | _WRITE_FILE
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE


def abi() -> int:
    """Return the kernel's landlock version; 0 where there is none."""
    try:
        return call(_CREATE, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def describe() -> str:
    """Return the version, and what sessions cannot do as this version cannot restrict it."""
    version = abi()
    if not version:
        return "no landlock"
    lacks = ["files cannot be moved between folders"] if version < 2 else []
    lacks += ["files cannot be truncated by name"] if version < 3 else []
    return f"landlock {version}" + (f" ({', '.join(lacks)})" if lacks else "")


def make_ruleset(rules: Iterable[tuple[str, int]]) -> int:
    """Create a ruleset that allows only ``rules`` (folder or file, rights) and no TCP.

    Returns:
        Descriptor of the ruleset; any number of processes may restrict themselves by it.
    """
    version = abi()
    handled = _FIRST_ABI
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        handled |= right if version >= since else 0
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", _ALL_TCP)
    if version >= 6:
        attributes += struct.pack("=Q", _ALL_SCOPES)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = call(_CREATE, buffer, len(attributes), 0)
    for path, rights in rules:
        _allow(ruleset, path, rights & handled)
    return ruleset


def restrict(ruleset: int) -> None:
    """Restrict this process by the ruleset, irrevocably."""
    call(_RESTRICT, ruleset, 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        allowed = rights if os.path.isdir(path) else rights & _ON_FILES
        rule = struct.pack("=Qi", allowed, folder)
        buffer = ctypes.create_string_buffer(rule, len(rule))
        call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, buffer, 0)
    finally:
        os.close(folder)
