"""System calls that Python does not offer, by ctypes on libc; errors are OSErrors with the name."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4

_MNT_DETACH = 2
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_SETATTR = 442  # the same number on every architecture, as all calls since Linux 5.0
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x2008_0522

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_OCTAL = re.compile(r"\\([0-7]{3})")  # blanks in the kernel's list of mounts

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

ARCHITECTURE = os.uname().machine


def call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call by number.

    Raises:
        OSError: The kernel returned an error.
    """
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        raise _error(f"system call {number}")
    return result


def prepare_sorting() -> None:
    """Let libc read the size of the memory, which it does once, for its first large sort.

    The filter refuses it later, since the same call reports the load of the host; libc would then
    choose between its stable and its unstable algorithm by an uninitialised number.
    """
    array = ctypes.create_string_buffer(2048)
    equal = ctypes.cast(_libc.strcmp, ctypes.c_void_p)
    _libc.qsort(array, ctypes.c_size_t(2048), ctypes.c_size_t(1), equal)


def unshare(flags: int) -> None:
    """Move into new namespaces of the kinds in ``flags``."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Move into the namespace behind ``descriptor``."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount ``source`` on ``target``; ``kind`` is empty where the flags suffice."""
    encoded = [os.fsencode(text) for text in (source, target, kind)]
    result = _libc.mount(*encoded, ctypes.c_ulong(flags), options.encode())
    _check(result, f"mount {kind or source} on {target}")


def make_read_only(target: str, *, devices: bool = False) -> None:
    """Make a mount and all below it read-only and, unless ``devices``, free of devices."""
    attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | (0 if devices else MOUNT_ATTR_NODEV)
    change = ctypes.create_string_buffer(struct.pack("=QQQQ", attributes, 0, 0, 0), 32)
    try:
        call(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, change, 32)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        remount_read_only(target, devices=devices)


def remount_read_only(target: str, *, devices: bool = False) -> None:
    """Do as `make_read_only`, mount by mount: before Linux 5.12 there is no call for all."""
    kept = {"nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [line.split(" ")[4:6] for line in file]
    for escaped, options in mounts:
        path = _OCTAL.sub(lambda found: chr(int(found[1], 8)), escaped)
        if path == target or path.startswith(f"{target}/"):
            flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | (0 if devices else MS_NODEV)
            for option in options.split(","):  # a user namespace may not remove them
                flags |= kept.get(option, 0)
            mount("none", path, "", flags)


def pivot_into(root: str) -> None:
    """Make ``root`` the root folder and unmount the old one."""
    os.chdir(root)
    call(_PIVOT_ROOT[ARCHITECTURE], b".", b".")
    _check(_libc.umount2(b".", ctypes.c_int(_MNT_DETACH)), "umount of the old root")
    os.chdir("/")


def set_host_name(name: bytes) -> None:
    """Set the host name of this UTS namespace."""
    _check(_libc.sethostname(name, ctypes.c_size_t(len(name))), "sethostname")


def die_with_parent(signal_number: int) -> None:
    """Request ``signal_number`` when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def set_dumpable(is_dumpable: bool) -> None:
    """Set whether this process owns its files in /proc (root owns them otherwise)."""
    _prctl(_PR_SET_DUMPABLE, int(is_dumpable))


def set_no_new_privileges() -> None:
    """Renounce new privileges from executing programs, irrevocably."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Clear every capability set, including the bounding set where that is allowed."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    head = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    call(_CAPSET[ARCHITECTURE], head, ctypes.create_string_buffer(bytes(24), 24))


def _prctl(option: int, value: int) -> None:
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    _check(_libc.prctl(ctypes.c_int(option), *arguments), f"prctl {option}")


def _check(result: int, name: str) -> None:
    if result < 0:
        raise _error(name)


def _error(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}")
