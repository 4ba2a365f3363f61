"""Attempts to escape: model code and the expected errors. Run only with isolation.

The numbers are those of the escape list. The verdict is the exception raised by the isolation.
"""

import platform
from dataclasses import dataclass

import pytest

ONLY_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="system call numbers are x86")

REFUSED = ("PermissionError", "FileNotFoundError", "NotADirectoryError", "OSError")


@dataclass(frozen=True)
class Attempt:
    """Code that tries, and the kinds of exception of which one must end it."""

    name: str
    code: str
    refusals: tuple[str, ...] = REFUSED


FILES = [
    Attempt("1 a host file", "open('/etc/hostname').read()"),
    Attempt("2 the shadow file", "open('/etc/shadow').read()"),
    Attempt("3 the trainer's home", "import os; open(os.path.join(HOME, 'canary')).read()"),
    Attempt("4 the canary itself", "open(CANARY_FILE).read()"),
    Attempt("5a a library", "import numpy; open(numpy.__file__, 'a')"),
    Attempt("5b the standard library", "import os; open(os.__file__, 'a')"),
    Attempt("5c beside the library", "import numpy; open(numpy.__path__[0] + '/x.py', 'w')"),
    Attempt("5d a device", "open('/dev/sda', 'wb')"),
    Attempt("5e the root", "open('/x', 'w')"),
    Attempt("6a a link out", "import os; os.symlink('/etc/shadow', 'l'); open('l').read()"),
    Attempt(
        "6b a link to /proc", "import os; os.symlink('/proc/1/environ', 'l'); open('l').read()"
    ),
    Attempt("7 the root of another process", "open('/proc/1/' 'root/etc/passwd').read()"),
    Attempt("7b its own root through /proc", "open('/proc/self/' 'root/etc/passwd').read()"),
    Attempt("8a dots", "open('../' * 20 + 'etc/passwd').read()"),
    Attempt("8b chroot", "import os; os.chroot('.')"),
    Attempt("10a mknod", "import os, stat; os.mknod('d', stat.S_IFBLK | 0o600, os.makedev(8, 0))"),
    Attempt("10b memory", "open('/dev/mem', 'rb')"),
    Attempt("10c kvm", "open('/dev/kvm', 'rb')"),
    Attempt("13a sysfs", "open('/sys/kernel/uevent_seqnum').read()"),
    Attempt("13b cgroups", "open('/sys/fs/cgroup/cgroup.procs').read()"),
    Attempt("own 1 ours in the libraries", "import codedance.sandbox", ("ModuleNotFoundError",)),
    Attempt("own 2 a socket file", "import os, stat; os.mknod('s', stat.S_IFSOCK | 0o600)"),
]

PROCESSES = [
    Attempt("14 processes in /proc", "import os; os.listdir('/proc')"),
    Attempt("15a its own memory", "open('/proc/self/mem', 'rb').read(1)"),
    Attempt("15b its own maps", "open('/proc/self/maps').read()"),
    Attempt("15c its own environ", "open('/proc/self/environ', 'rb').read()"),
    Attempt(
        "19 the host's processes", "import os; os.kill(HOST_PID, 0)", ("PermissionError", "Proc")
    ),
    Attempt("20 fork", "import os; os.fork()", ("PermissionError", "BlockingIOError")),
    Attempt("20b forkpty", "import os; os.forkpty()", (*REFUSED, "Blocking")),
    Attempt("21a exec", "import os; os.execv('/bin/true', ['true'])"),
    Attempt("21b subprocess", "import subprocess; subprocess.run(['true'])", (*REFUSED, "Block")),
    Attempt(
        "21c spawn", "import os; os.posix_spawn('/bin/true', ['true'], {})", (*REFUSED, "Block")
    ),
    Attempt(
        "22 multiprocessing",
        "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
        (*REFUSED, "Blocking"),
    ),
]

NETWORK = [
    Attempt("31 TCP", "import socket; socket.create_connection(('127.0.0.1', PORT), 1)", REFUSED),
    Attempt(
        "32a DNS", "import socket; socket.getaddrinfo('example.org', 80)", ("gaierror", "Perm")
    ),
    Attempt("32b UDP", "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM)"),
    Attempt("33a netlink", "import socket as s; s.socket(s.AF_NETLINK, s.SOCK_RAW)"),
    Attempt("33b vsock", "import socket as s; s.socket(s.AF_VSOCK, s.SOCK_STREAM)"),
    Attempt("33c packets", "import socket as s; s.socket(s.AF_PACKET, s.SOCK_RAW)"),
    Attempt("34 abstract and path sockets", "import socket as s; s.socket(s.AF_UNIX)"),
    Attempt("31b a download", "import urllib.request as u; u.urlopen('http://x')", ("URLError",)),
    Attempt(
        "own 3 a pair of another family", "import socket as s; s.socketpair(s.AF_INET)", REFUSED
    ),
    Attempt(
        "36 bind on its own descriptor",
        "import socket; socket.socketpair()[0].bind('here')",
    ),
]

SYSTEM_CALLS = {
    "9 name_to_handle_at": 303,
    "9 open_by_handle_at": 304,
    "16 ptrace": 101,
    "17 process_vm_readv": 310,
    "17 process_vm_writev": 311,
    "17 pidfd_open": 434,
    "17 pidfd_getfd": 438,
    "20 fork": 57,
    "21 execve": 59,
    "21 execveat": 322,
    "31 socket": 41,
    "31 connect": 42,
    "31 bind": 49,
    "31 listen": 50,
    "31 accept": 43,
    "37 io_uring_setup": 425,
    "37 io_uring_enter": 426,
    "38 bpf": 321,
    "38 perf_event_open": 298,
    "38 add_key": 248,
    "38 keyctl": 250,
    "38 userfaultfd": 323,
    "38 kexec_load": 246,
    "38 init_module": 175,
    "38 finit_module": 313,
    "39 unshare": 272,
    "39 setns": 308,
    "40 mount": 165,
    "40 umount2": 166,
    "40 pivot_root": 155,
    "40 open_tree": 428,
    "40 move_mount": 429,
    "40 fsopen": 430,
    "40 fsmount": 432,
    "40 mount_setattr": 442,
    "41 setuid": 105,
    "41 setgid": 106,
    "41 setresuid": 117,
    "41 setgroups": 116,
    "41 capset": 126,
    "42 seccomp": 317,
    "45 settimeofday": 164,
    "45 clock_settime": 227,
    "45 sethostname": 170,
    "46 setpriority": 141,
    "46 sched_setaffinity": 203,
    "46 sched_setscheduler": 144,
    "50 memfd_create": 319,
    "50 memfd_secret": 447,
    "50 shmget": 29,
    "50 semget": 64,
    "50 msgget": 68,
    "50 mq_open": 240,
    "own 4 personality": 135,
    "own 5 syslog": 103,
    "own 6 fanotify_init": 300,
    "own 7 inotify_init1": 294,
    "own 8 timer_create": 222,
    "own 9 timerfd_create": 283,
    "own 10 quotactl": 179,
    "own 11 reboot": 169,
    "own 12 vmsplice": 278,
    "own 13 landlock_create_ruleset": 444,
    "own 14 mlockall": 151,
    "own 15 process_madvise": 440,
    "192 sysinfo": 99,
    "193 statfs": 137,
    "193 fstatfs": 138,
}
"""x86-64 numbers of calls that must fail with EPERM for any arguments."""
