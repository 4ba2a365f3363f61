"""The system-call filter: a small assembler for classic BPF and the two programs that stand.

The zygote loads the first program (what sessions may do, and the calls that set a session up);
forks inherit it. Each session adds the second, short one, which takes the set-up calls away.
What is refused gets EPERM, so that model code meets an ordinary PermissionError.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from .kernel import ARCHITECTURE, call
from .syscalls import number_of

_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN, _AND = 0x20, 0x15, 0x45, 0x35, 0x06, 0x54
_NUMBER_OFFSET, _ARCH_OFFSET = 0, 4
_KILL, _ERRNO, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_X32_BIT = 0x4000_0000
_SECCOMP_SET_MODE_FILTER = 1

_CLONE_THREAD = 0x0001_0000
_CLONE_NAMESPACES = 0x7E02_0080
_MAP_SHARED, _MAP_ANONYMOUS, _MAP_GROWSDOWN = 0x01, 0x20, 0x0100
_AF_UNIX = 1
_SOCK_TYPE = 0xF

_ALWAYS = """
read write open close stat fstat lstat poll lseek mprotect munmap brk rt_sigaction rt_sigprocmask
rt_sigreturn pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore
madvise dup dup2 pause nanosleep getitimer alarm setitimer getpid sendto recvfrom sendmsg recvmsg
shutdown getsockname getpeername setsockopt getsockopt exit uname fcntl flock fsync fdatasync
truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink
readlink chmod fchmod umask gettimeofday getrlimit getrusage sysinfo times getuid getgid geteuid
getegid getppid getpgrp getgroups getresuid getresgid getpgid getsid rt_sigpending rt_sigtimedwait
rt_sigsuspend sigaltstack utime statfs fstatfs sched_getparam sched_getscheduler arch_prctl gettid
time futex sched_getaffinity epoll_create getdents64 set_tid_address restart_syscall fadvise64
clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl utimes openat mkdirat
newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll
set_robust_list get_robust_list utimensat epoll_pwait fallocate eventfd2 epoll_create1 dup3 pipe2
preadv pwritev getcpu renameat2 getrandom membarrier copy_file_range preadv2 pwritev2 statx rseq
close_range openat2 faccessat2 futex_waitv fchmodat2
""".split()
_SIGNALS = ("kill", "tkill", "tgkill")
_SETUP = """
unshare setns mount capset setrlimit seccomp pidfd_open landlock_create_ruleset landlock_add_rule
landlock_restrict_self
""".split()
_NOT_HERE = ("clone3",)  # ENOSYS: glibc falls back to clone, whose flags a filter can read
_NO_ATTRIBUTES = (
    "setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr"
).split()  # ENOTSUP: shutil.copy2 goes on without
_TERMINAL_QUESTIONS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451, 0x5413)
_HARMLESS_PRCTL = (15, 16, 0x5356_4D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA


@dataclass(frozen=True)
class _Test:
    """A jump if a 32-bit word of the call's data passes: equal, or any bit of the mask set."""

    kind: int
    value: int


def _word(argument: int, *, high: bool = False) -> int:
    """Offset of the low (or high) half of an argument in ``struct seccomp_data``."""
    return 16 + 8 * argument + (4 if high else 0)


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, offset)


def _give(value: int) -> bytes:
    return _instruction(_RETURN, value)


def _refuse(number: int) -> bytes:
    return _give(_ERRNO | number)


def _for_call(name: str, body: Sequence[bytes]) -> list[bytes]:
    """Run ``body``, which always returns, when the call is ``name``; the number is loaded."""
    number = number_of(name)
    if number is None:
        return []
    return [_instruction(_EQUAL, number, 0, len(body)), *body]


def _if(test: _Test, then: bytes, otherwise: bytes) -> list[bytes]:
    return [_instruction(test.kind, test.value, 0, 1), then, otherwise]


def _allow_if_any(offset: int, values: Sequence[int]) -> list[bytes]:
    """Allow when the word is one of ``values``, refuse otherwise."""
    body = [_load(offset)]
    for position, value in enumerate(values):
        body.append(_instruction(_EQUAL, value, len(values) - position, 0))
    return [*body, _refuse(errno.EPERM), _give(_ALLOW)]


def _prologue() -> list[bytes]:
    """Kill what is not this machine's own ABI, x32 included, then load the call's number."""
    code = [
        _load(_ARCH_OFFSET),
        _instruction(_EQUAL, _AUDIT_ARCH[ARCHITECTURE], 1, 0),
        _give(_KILL),
        _load(_NUMBER_OFFSET),
    ]
    if ARCHITECTURE == "x86_64":
        code += [_instruction(_AT_LEAST, _X32_BIT, 0, 1), _give(_KILL)]
    return code


def _only_threads() -> list[bytes]:
    threads = _Test(_ANY_BIT, _CLONE_THREAD)
    return [_load(_word(0)), *_if(threads, _give(_ALLOW), _refuse(errno.EPERM))]


def _no_namespaces() -> list[bytes]:
    namespaces = _Test(_ANY_BIT, _CLONE_NAMESPACES)
    return [_load(_word(0)), *_if(namespaces, _refuse(errno.EPERM), _give(_ALLOW))]


def _bounded_memory() -> list[bytes]:
    """Refuse mappings that escape RLIMIT_DATA: shared anonymous ones and growing stacks."""
    shared_anonymous = _MAP_SHARED | _MAP_ANONYMOUS
    return [
        _load(_word(3)),
        _instruction(_ANY_BIT, _MAP_GROWSDOWN, 3, 0),
        _instruction(_AND, shared_anonymous),
        _instruction(_EQUAL, shared_anonymous, 1, 0),
        _give(_ALLOW),
        _refuse(errno.ENOMEM),
    ]


def _own_limits_only() -> list[bytes]:
    own = _Test(_EQUAL, 0)
    return [_load(_word(0)), *_if(own, _give(_ALLOW), _refuse(errno.EPERM))]


def zygote_program() -> bytes:
    """What a session may do, and what sets it up."""
    code = _prologue()
    for name in (*_ALWAYS, *_SIGNALS, *_SETUP):
        code += _for_call(name, [_give(_ALLOW)])
    code += _for_call("mmap", _bounded_memory())
    code += _for_call("clone", _no_namespaces())
    code += _for_call("socketpair", _allow_if_any(_word(0), [_AF_UNIX]))
    code += _for_call("ioctl", _allow_if_any(_word(1), _TERMINAL_QUESTIONS))
    code += _for_call("prlimit64", _own_limits_only())
    code += _for_call("prctl", [_give(_ALLOW)])
    code += _refusals()
    return b"".join([*code, _refuse(errno.EPERM)])


def session_program(*, own_pid: int | None = None, threads: bool = True) -> bytes:
    """What takes the set-up calls away again.

    Args:
        own_pid: The only process that may be signalled; None where a pid namespace sees to it.
        threads: Whether threads may start.
    """
    code = _prologue()
    for name in _SETUP:
        code += _for_call(name, [_refuse(errno.EPERM)])
    code += _for_call("clone", _only_threads() if threads else [_refuse(errno.EAGAIN)])
    code += _for_call("prctl", _allow_if_any(_word(0), _HARMLESS_PRCTL))
    if own_pid is not None:
        code += _for_call("kill", _allow_if_any(_word(0), [own_pid]))
        code += _for_call("tgkill", _allow_if_any(_word(0), [own_pid]))
        code += _for_call("tkill", [_refuse(errno.EPERM)])
    return b"".join([*code, _give(_ALLOW)])


def install(program: bytes) -> None:
    """Load a program for good; ``no_new_privs`` must be set."""
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    number = number_of("seccomp")
    if number is None:
        raise OSError("no seccomp on this architecture")
    call(number, _SECCOMP_SET_MODE_FILTER, 0, ctypes.create_string_buffer(header, len(header)))


def _refusals() -> list[bytes]:
    code: list[bytes] = []
    for name in _NOT_HERE:
        code += _for_call(name, [_refuse(errno.ENOSYS)])
    for name in _NO_ATTRIBUTES:
        code += _for_call(name, [_refuse(errno.ENOTSUP)])
    return code
