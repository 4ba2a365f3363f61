"""The system-call filter: a small assembler for classic BPF and the two filter programs.

The zygote loads the first program (the calls of sessions, and those that set up a session); forks
inherit it. Each session adds the second, short one, which removes the setup calls. Refused calls
fail with EPERM, so that model code gets an ordinary PermissionError.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Sequence

from .kernel import ARCHITECTURE, call
from .syscalls import (
    BY_NAME,
    CHECKED,
    CLOCKS,
    FREE,
    LINKS,
    LOCKS,
    NOT_HERE,
    OF_PROCESSES,
    OPEN,
    PARENTS,
    SETUP,
    SYNCS,
    WITH_FLAGS,
    WITHOUT_ATTRIBUTES,
    Calls,
    number_of,
    numbers,
)

_ALL = 0xFFFF_FFFF
_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN, _AND = 0x20, 0x15, 0x45, 0x35, 0x06, 0x54
_NUMBER_OFFSET, _ARCH_OFFSET = 0, 4
_KILL, _ERRNO, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_X32_BIT = 0x4000_0000
_SECCOMP_SET_MODE_FILTER = 1

_CLONE_THREAD = 0x0001_0000
_CLONE_NAMESPACES = 0x7E02_0080
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_GROWSDOWN, _MAP_HUGETLB = 0x01, 0x20, 0x0100, 0x0004_0000
_AF_UNIX = 1
_SOCKET_KIND, _SOCK_STREAM, _SOCK_SEQPACKET = 0xF, 1, 5
_ACCESS_MODE, _NO_ACCESS, _TRUNCATE = 0x3, 0x3, 0x200  # of open: O_RDONLY is 0

_TERMINAL_QUESTIONS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451, 0x5413)
# Not F_SETOWN and F_SETSIG (they signal other processes), F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ:
_FILE_CONTROLS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032, 1034)
_PEER_OPTIONS = (17, 31, 59, 77)  # SO_PEERCRED, SO_PEERSEC, SO_PEERGROUPS, SO_PEERPIDFD
_SET_LOCKS = (6, 7, 37, 38)  # F_SETLK, F_SETLKW, and those of open file descriptions
# NORMAL to DONTNEED, FREE, DONTFORK, DOFORK, HUGEPAGE, NOHUGEPAGE, DONTDUMP, DODUMP, and on fork;
# the others act on pages that other processes share: MADV_COLD, PAGEOUT, MERGEABLE, POPULATE …
_OWN_ADVICE = (0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17, 18, 19)
_FUTEX_PRIVATE, _FUTEX_COMMAND = 0x80, 0x7F
_FUTEX_WAITS, _FUTEX_WAKES = (0, 9), (1, 3, 4, 5, 10)
_KERNEL_CLOCKS = 16  # from here on, clocks of processes and devices
_HARMLESS_PRCTL = (15, 16, 0x5356_4D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA


def _word(argument: int) -> int:
    """Return the offset of an argument's low half in ``struct seccomp_data``."""
    return 16 + 8 * argument


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, offset)


def _return(value: int) -> bytes:
    return _instruction(_RETURN, value)


def _refuse(number: int) -> bytes:
    return _return(_ERRNO | number)


def _for_number(number: int, body: Sequence[bytes]) -> list[bytes]:
    """Run ``body``, which always returns, when the loaded call number is ``number``."""
    return [_instruction(_EQUAL, number, 0, len(body)), *body]


def _for_call(name: str, body: Sequence[bytes]) -> list[bytes]:
    return _for_number(number_of(name), body)


def _for_group(calls: Calls, verdict: bytes) -> list[bytes]:
    return [step for number in numbers(calls) for step in _for_number(number, [verdict])]


def _by_flags(mask: int, if_any: bytes, if_none: bytes) -> list[bytes]:
    """Branch on whether the first argument has any bit of ``mask``."""
    return [_load(_word(0)), _instruction(_ANY_BIT, mask, 0, 1), if_any, if_none]


def _allow_if_any(offset: int, values: Sequence[int]) -> list[bytes]:
    """Allow when the word is one of ``values``, refuse otherwise."""
    body = [_load(offset)]
    for position, value in enumerate(values):
        body.append(_instruction(_EQUAL, value, len(values) - position, 0))
    return [*body, _refuse(errno.EPERM), _return(_ALLOW)]


def _refuse_if_any(offset: int, values: Sequence[int]) -> list[bytes]:
    """Refuse when the word is one of ``values``, allow otherwise."""
    body = _allow_if_any(offset, values)
    return [*body[:-2], body[-1], body[-2]]


def _by_value(offset: int, mask: int, *cases: tuple[Sequence[int], bytes]) -> list[bytes]:
    """Return the verdict of the case that holds the masked word; the last case is any other."""
    body = [_load(offset), _instruction(_AND, mask)]
    for values, verdict in cases[:-1]:
        for value in values:
            body += [_instruction(_EQUAL, value, 0, 1), verdict]
    return [*body, cases[-1][1]]


def _for_each(calls: Calls, body: Sequence[bytes]) -> list[bytes]:
    return [step for number in numbers(calls) for step in _for_number(number, body)]


def _prologue() -> list[bytes]:
    """Kill calls of any other ABI, x32 included, then load the call's number."""
    code = [
        _load(_ARCH_OFFSET),
        _instruction(_EQUAL, _AUDIT_ARCH[ARCHITECTURE], 1, 0),
        _return(_KILL),
        _load(_NUMBER_OFFSET),
    ]
    if ARCHITECTURE == "x86_64":
        code += [_instruction(_AT_LEAST, _X32_BIT, 0, 1), _return(_KILL)]
    return code


def _bounded_memory() -> list[bytes]:
    """Refuse mappings that escape the limits: shared anonymous, growing and huge ones.

    Pages of the machine's pool of huge pages count as no process's resident memory.
    """
    shared_anonymous = _MAP_SHARED | _MAP_ANONYMOUS
    return [
        _load(_word(3)),
        _instruction(_ANY_BIT, _MAP_GROWSDOWN | _MAP_HUGETLB, 3, 0),
        _instruction(_AND, shared_anonymous),
        _instruction(_EQUAL, shared_anonymous, 1, 0),
        _return(_ALLOW),
        _refuse(errno.ENOMEM),
    ]


def zygote_program() -> bytes:
    """Return the program of the zygote: the calls of a session and of its setup."""
    code = _prologue()
    code += _for_group(FREE | SETUP, _return(_ALLOW))
    code += _for_call("mmap", _bounded_memory())
    code += _for_call("clone", _by_flags(_CLONE_NAMESPACES, _refuse(errno.EPERM), _return(_ALLOW)))
    code += _for_call("socketpair", _connected_pairs())
    code += _for_call("ioctl", _allow_if_any(_word(1), _TERMINAL_QUESTIONS))
    code += _for_call("fcntl", _allow_if_any(_word(1), _FILE_CONTROLS))
    code += _for_call("prlimit64", _allow_if_any(_word(0), [0]))
    code += _for_group(CHECKED, _return(_ALLOW))  # signals and prctl: the session's program decides
    code += _for_group(NOT_HERE, _refuse(errno.ENOSYS))
    code += _for_group(WITHOUT_ATTRIBUTES, _refuse(errno.ENOTSUP))
    return b"".join([*code, _refuse(errno.EPERM)])


def _connected_pairs() -> list[bytes]:
    """Allow pairs that cannot send elsewhere: a datagram may name any socket of the host."""
    return [
        _load(_word(0)),
        _instruction(_EQUAL, _AF_UNIX, 1, 0),
        _refuse(errno.EPERM),
        *_by_value(
            _word(1),
            _SOCKET_KIND,
            ((_SOCK_STREAM, _SOCK_SEQPACKET), _return(_ALLOW)),
            ((), _refuse(errno.EPERM)),
        ),
    ]


def session_program(
    own_pid: int, *, is_confined: bool = False, threads: bool = True, truncates: bool = True
) -> bytes:
    """Return the program of a session, which removes the setup calls.

    Args:
        own_pid: The only process that may be signalled. A namespace does not ensure that: a signal
            to the process group reaches the zygote unless landlock prevents it (ABI 6).
        is_confined: Whether there are no namespaces, so that files and processes of others can be
            named. Modes and times are then not changed: a call to change them does nothing and
            reports success, so that `shutil.copy` works.
        threads: Whether threads may start.
        truncates: Whether files may be truncated by name, which landlock restricts from ABI 3.
    """
    code = _prologue()
    code += _for_group(SETUP, _refuse(errno.EPERM))
    only_threads = _by_flags(_CLONE_THREAD, _return(_ALLOW), _refuse(errno.EPERM))
    code += _for_call("clone", only_threads if threads else [_refuse(errno.EAGAIN)])
    code += _for_call("prctl", _allow_if_any(_word(0), _HARMLESS_PRCTL))
    code += _for_call("kill", _allow_if_any(_word(0), [own_pid]))
    code += _for_call("tgkill", _allow_if_any(_word(0), [own_pid]))
    code += _for_group(PARENTS, _refuse(0))
    code += _for_call("getsockopt", _refuse_if_any(_word(2), _PEER_OPTIONS))
    code += _apart_from_siblings()
    if is_confined:
        code += _without_namespaces(own_pid, truncates)
    return b"".join([*code, _return(_ALLOW)])


def _apart_from_siblings() -> list[bytes]:
    """Remove what sessions could signal by on files that all can read, and truncation by reading.

    Locks report success: a session is one process, which they would not hold up. Nobody waits on
    shared memory, so nobody can be woken: libc, which does so to join a thread, asks again.
    """
    allow = _return(_ALLOW)
    # With mode 3 landlock sees no access to check; without writing it sees no change before ABI 3.
    odd = ((_NO_ACCESS, _NO_ACCESS | _TRUNCATE, _TRUNCATE), _refuse(errno.EPERM))
    code = [
        *_for_each(OPEN, _by_value(_word(1), _ACCESS_MODE | _TRUNCATE, odd, ((), allow))),
        *_for_call("openat", _by_value(_word(2), _ACCESS_MODE | _TRUNCATE, odd, ((), allow))),
    ]
    code += _for_group(LOCKS, _refuse(0))
    code += _for_call("fcntl", _by_value(_word(1), _ALL, (_SET_LOCKS, _refuse(0)), ((), allow)))
    no_flags = _by_value(_word(5), _ALL, ((0,), allow), ((), _refuse(errno.EOPNOTSUPP)))
    code += _for_each(WITH_FLAGS, no_flags)
    advice = _by_value(_word(2), _ALL, (_OWN_ADVICE, allow), ((), _refuse(errno.EINVAL)))
    code += _for_call("madvise", advice)
    shared = _by_value(
        _word(1),
        _FUTEX_COMMAND,
        (_FUTEX_WAITS, _refuse(errno.EAGAIN)),
        (_FUTEX_WAKES, _refuse(0)),
        ((), _refuse(errno.ENOSYS)),
    )
    is_private = [_load(_word(1)), _instruction(_ANY_BIT, _FUTEX_PRIVATE, 0, 1), allow]
    return [*code, *_for_call("futex", [*is_private, *shared])]


def _without_namespaces(own_pid: int, truncates: bool) -> list[bytes]:
    """Remove what names files and processes of others, and what outruns the disk watchdog."""
    allow = _return(_ALLOW)
    own_clocks = [((~pid << 3) | kind) & _ALL for pid in (0, own_pid) for kind in (2, 6)]
    clocks = [
        _load(_word(0)),
        _instruction(_AT_LEAST, _KERNEL_CLOCKS, 1, 0),
        allow,
        *_by_value(_word(0), _ALL, (own_clocks, allow), ((), _refuse(errno.EINVAL))),
    ]
    own = _by_value(_word(0), _ALL, ((0, own_pid), allow), ((), _refuse(errno.ESRCH)))
    code = _for_group(BY_NAME | SYNCS, _refuse(0))
    code += _for_group(LINKS, _refuse(errno.EPERM))
    code += _for_each(CLOCKS, clocks)
    code += _for_each(OF_PROCESSES, own)
    code += _for_call("fallocate", [_refuse(errno.EOPNOTSUPP)])
    if not truncates:
        code += _for_call("truncate", [_refuse(errno.EPERM)])
    return code


def install(program: bytes) -> None:
    """Load a program irrevocably; ``no_new_privs`` must be set."""
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    call(
        number_of("seccomp"),
        _SECCOMP_SET_MODE_FILTER,
        0,
        ctypes.create_string_buffer(header, len(header)),
    )
