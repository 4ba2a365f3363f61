"""Numbers of the system calls that the filter names, on x86-64 and 64-bit ARM.

The first column is x86-64's, the second ARM's; None where the architecture has no such call. Calls
in no group are refused.
"""

from __future__ import annotations

from .kernel import ARCHITECTURE

Calls = dict[str, tuple[int | None, int | None]]

FREE: Calls = {
    "read": (0, 63),
    "write": (1, 64),
    "open": (2, None),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "poll": (7, None),
    "lseek": (8, 62),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "pipe": (22, None),
    "select": (23, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "msync": (26, 227),
    "madvise": (28, 233),
    "dup": (32, 23),
    "dup2": (33, None),
    "pause": (34, None),
    "nanosleep": (35, 101),
    "getitimer": (36, 102),
    "alarm": (37, None),
    "setitimer": (38, 103),
    "getpid": (39, 172),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "shutdown": (48, 210),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "getsockopt": (55, 209),
    "exit": (60, 93),
    "uname": (63, 160),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "getdents": (78, None),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "rename": (82, None),
    "mkdir": (83, None),
    "rmdir": (84, None),
    "creat": (85, None),
    "link": (86, None),
    "unlink": (87, None),
    "symlink": (88, None),
    "readlink": (89, None),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "umask": (95, 166),
    "gettimeofday": (96, 169),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "times": (100, 153),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "getppid": (110, 173),
    "getpgrp": (111, None),
    "getgroups": (115, 158),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132),
    "utime": (132, None),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "arch_prctl": (158, None),
    "gettid": (186, 178),
    "time": (201, None),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "epoll_create": (213, None),
    "getdents64": (217, 61),
    "set_tid_address": (218, 96),
    "restart_syscall": (219, 128),
    "fadvise64": (221, 223),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "epoll_wait": (232, None),
    "epoll_ctl": (233, 21),
    "utimes": (235, None),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "newfstatat": (262, 79),
    "unlinkat": (263, 35),
    "renameat": (264, 38),
    "linkat": (265, 37),
    "symlinkat": (266, 36),
    "readlinkat": (267, 78),
    "fchmodat": (268, 53),
    "faccessat": (269, 48),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "utimensat": (280, 88),
    "epoll_pwait": (281, 22),
    "fallocate": (285, 47),
    "eventfd2": (290, 19),
    "epoll_create1": (291, 20),
    "dup3": (292, 24),
    "pipe2": (293, 59),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "getcpu": (309, 168),
    "renameat2": (316, 276),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "copy_file_range": (326, 285),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "statx": (332, 291),
    "rseq": (334, 293),
    "close_range": (436, 436),
    "faccessat2": (439, 439),
    "fchmodat2": (452, 452),
}
"""Calls allowed in a session with any arguments."""

CHECKED: Calls = {
    "fcntl": (72, 25),
    "mmap": (9, 222),
    "ioctl": (16, 29),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "kill": (62, 129),
    "prctl": (157, 167),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
}
"""Calls allowed in a session with some arguments."""

SETUP: Calls = {
    "sendmsg": (46, 211),  # carries descriptors, which are memory that no limit counts
    "wait4": (61, 260),
    "capset": (126, 91),
    "setpgid": (109, 154),
    "setrlimit": (160, 164),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "seccomp": (317, 277),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}
"""Calls allowed only during the setup of a session."""

BY_NAME: Calls = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "utime": (132, None),
    "utimes": (235, None),
    "fchmodat": (268, 53),
    "utimensat": (280, 88),
    "fchmodat2": (452, 452),
}
"""Calls that change modes and times of files that can be named or read, which landlock allows; also
in FREE."""

OPEN: Calls = {
    "open": (2, None),
}
"""The call that opens a path, without a folder as its first argument; also in FREE."""

LINKS: Calls = {
    "readlink": (89, None),
    "readlinkat": (267, 78),
}
"""Calls that read where a link leads, which landlock allows of any link; also in FREE."""

OF_PROCESSES: Calls = {
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "sched_getaffinity": (204, 123),
    "get_robust_list": (274, 100),
}
"""Calls that take a process id, or 0 for the caller; also in FREE."""

CLOCKS: Calls = {
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
}
"""Calls that take a clock, which may be that of another process; also in FREE."""

LOCKS: Calls = {
    "flock": (73, 32),
    "fadvise64": (221, 223),
}
"""Calls on open files that other sessions notice; also in FREE."""

WITH_FLAGS: Calls = {
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
}
"""Calls whose flags ask what the page cache holds; also in FREE."""

SYNCS: Calls = {
    "msync": (26, 227),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
}
"""Calls that make a disk write at once, so that other programs wait for it; also in FREE. Where the
disk is the host's they do nothing: the files of a session need not outlive a crash of the machine.
"""

PARENTS: Calls = {
    "getppid": (110, 173),
    "getpgrp": (111, None),
    "getpgid": (121, 155),
    "getsid": (124, 156),
}
"""Calls that report parent processes; they return 0, as in a pid namespace below the zygote's."""

WITHOUT_ATTRIBUTES: Calls = {
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "fgetxattr": (193, 10),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "flistxattr": (196, 13),
}
"""Calls that fail as on a file system without extended attributes, which `shutil` ignores."""

NOT_HERE: Calls = {
    "clone3": (435, 435),
    "openat2": (437, 437),
    "futex_waitv": (449, 449),
}
"""Calls that fail as on an older kernel: libc then uses others, whose flags a filter can read."""

_COLUMN = {"x86_64": 0, "aarch64": 1}


def numbers(calls: Calls) -> list[int]:
    """Return the numbers of a group on this machine.

    Raises:
        OSError: This architecture is neither x86-64 nor 64-bit ARM.
    """
    if ARCHITECTURE not in _COLUMN:
        raise OSError(f"no system call table for {ARCHITECTURE}")
    column = _COLUMN[ARCHITECTURE]
    return [number for both in calls.values() if (number := both[column]) is not None]


def number_of(name: str) -> int:
    """Return the number of a call that exists on every architecture."""
    return numbers({name: {**FREE, **CHECKED, **SETUP}[name]})[0]
