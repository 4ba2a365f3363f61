"""Attempts 31 to 46: the network and the kernel."""

from .attempt import FILTER, Attempt

_NET = "its own network namespace (full); system-call filter"

NETWORK = (
    Attempt(
        "31",
        "TCP: connect out, listen",
        (
            "import socket, urllib.request\n"
            "def reach():\n"
            "    with socket.create_connection(('127.0.0.1', FACTS['port']), 0.5):\n"
            "        return 'reached'\n"
            "def listen():\n"
            "    with socket.create_server(('127.0.0.1', 0)) as s: return s.getsockname()\n"
            "tries(reach, listen,\n"
            "      lambda: urllib.request.urlopen('http://127.0.0.1:%d' % FACTS['port']))",
        ),
        ends="ok",
        held_by=_NET,
        without=("filter", "landlock"),
    ),
    Attempt(
        "32",
        "DNS and UDP",
        (
            "import socket as s\n"
            "def udp():\n"
            "    with s.socket(s.AF_INET, s.SOCK_DGRAM) as out:\n"
            "        return out.sendto(b'x', ('127.0.0.1', 53))\n"
            "tries(lambda: s.getaddrinfo('example.org', 80), udp)",
        ),
        ends="ok",
        held_by=_NET,
        without=("filter",),
    ),
    Attempt(
        "33",
        "netlink, vsock, packet, bluetooth, alg sockets",
        (
            "import socket as s\n"
            "kinds = [(16, s.SOCK_RAW), (40, s.SOCK_STREAM), (17, s.SOCK_RAW), (38, 5), (31, 3),\n"
            "         (s.AF_INET6, s.SOCK_STREAM), (s.AF_INET, s.SOCK_RAW)]\n"
            "tries(*[lambda k=k: s.socket(*k).fileno() for k in kinds])",
        ),
        ends="ok",
        held_by=_NET,
        without=("filter",),
    ),
    Attempt(
        "34",
        "an abstract socket of the host",
        (
            "import socket as s\n"
            "def reach():\n"
            "    with s.socket(s.AF_UNIX) as out:\n"
            "        out.connect('\\0' + FACTS['abstract'])\n"
            "        return 'reached'\n"
            "tries(reach)",
        ),
        ends="ok",
        held_by=_NET,
        without=("filter", "landlock"),
    ),
    Attempt(
        "35",
        "path sockets: docker.sock, one of the host's",
        (
            "import socket as s\n"
            "def reach(path):\n"
            "    with s.socket(s.AF_UNIX) as out:\n"
            "        out.connect(path)\n"
            "        return path\n"
            "paths = ('/var/run/docker.sock', '/run/docker.sock', FACTS['unix_path'])\n"
            "tries(*[lambda p=p: reach(p) for p in paths])",
        ),
        ends="ok",
        held_by=f"{FILTER}; no such file (full)",
        without=("filter",),
    ),
    Attempt(
        "36",
        "connect, bind, listen, accept on its own descriptor",
        (
            "import socket as s\nfd = own_socket()\n"
            "tries(*[lambda n=n: reaches_kernel(n[0], n[1], n[2], fd, 0, 0) for n in\n"
            "        (('connect', 42, 203), ('bind', 49, 200), ('listen', 50, 201),\n"
            "         ('accept', 43, 202), ('accept4', 288, 242))],\n"
            "      lambda: s.socketpair()[0].bind('here') or 'bound',\n"
            "      lambda: s.socketpair(s.AF_INET)[0].fileno())",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
)


def _calls(*names: str) -> str:
    """Return an attempt that makes system calls, each given as ``name x86 arm [arguments]``."""
    lines = []
    for entry in names:
        name, x86, arm, *rest = entry.split()
        arguments = ", ".join([repr(name), x86, arm, *rest])
        lines.append(f"    lambda: reaches_kernel({arguments}),")
    return "tries(\n" + "\n".join(lines) + "\n)"


KERNEL = (
    Attempt(
        "37",
        "io_uring",
        (_calls("io_uring_setup 425 425", "io_uring_enter 426 426", "io_uring_register 427 427"),),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "38",
        "bpf, perf, keyctl, userfaultfd, modules, kexec",
        (
            _calls(
                "bpf 321 280",
                "perf_event_open 298 241",
                "add_key 248 217",
                "keyctl 250 219",
                "userfaultfd 323 282",
                "finit_module 313 273 -1 0 0",
                "init_module 175 105",
                "kexec_load 246 104 0 99",
            ),
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "39",
        "unshare, setns",
        (
            _calls(
                "unshare 272 97 0x10000000",
                "unshare-net 272 97 0x50000000",
                "setns 308 268 -1 0",
            ),
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "40",
        "mount and the new mount calls",
        (
            _calls(
                "mount 165 40",
                "umount2 166 39",
                "pivot_root 155 41",
                "open_tree 428 428 -1",
                "move_mount 429 429 -1",
                "fsopen 430 430",
                "fsmount 432 432 -1",
                "fspick 433 433 -1",
                "mount_setattr 442 442 -1",
            ),
        ),
        ends="ok",
        held_by=f"{FILTER}; no capability",
        without=("filter",),
    ),
    Attempt(
        "41",
        "setuid, setgroups, capset, chown",
        (
            "open('mine', 'w').close()\n"
            + _calls(
                "setuid 105 146 0",
                "setgid 106 144 0",
                "setreuid 113 145 0 0",
                "setresuid 117 147 0 0 0",
                "setfsuid 122 151 0",
                "setgroups 116 159 0 0",
                "capset 126 91",
                "fchownat 260 54 -100 b'mine' 0 0 0",
            ),
        ),
        ends="ok",
        held_by=f"{FILTER}; no capability",
        without=("filter",),
    ),
    Attempt(
        "42",
        "prctl: disabling seccomp, undoing the zygote's settings",
        (
            _calls(
                "no_new_privs 157 167 38 0 0 0 0",
                "prctl-seccomp 157 167 22 0 0 0 0",
                "seccomp 317 277 2 0 0",
                "dumpable 157 167 4 1 0 0 0",
                "pdeathsig 157 167 1 0 0 0 0",
                "subreaper 157 167 36 1 0 0 0",
                "ptracer 157 167 0x59616d61 -1 0 0 0",
                "timerslack 157 167 29 1 0 0 0",
                "set_mm 157 167 35 1 0 0 0",
            ),
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "43",
        "the x32 ABI",
        ("call(0x40000000 | 39, 0)\nescaped('x32 answered')",),
        ends="killed",
        held_by=FILTER,
        why_no_control="kernels built without x32 refuse it by themselves",
        is_x86=True,
    ),
    Attempt(
        "44",
        "TIOCSTI and other ioctls",
        (
            "import fcntl\n"
            "requests = {'TIOCSTI': 0x5412, 'TIOCSCTTY': 0x540e, 'TIOCLINUX': 0x541c,\n"
            "            'FIOASYNC': 0x5452, 'FIOSETOWN': 0x8901, 'RNDADDENTROPY': 0x40085203,\n"
            "            'TIOCNOTTY': 0x5422, 'FS_IOC_SETFLAGS': 0x40086602}\n"
            "tries(*[lambda n=n, r=r: reaches_kernel(n, 16, 29, own_socket(), r, 0)\n"
            "        for n, r in requests.items()])",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "45",
        "clock and host name",
        (
            _calls(
                "settimeofday 164 170",
                "clock_settime 227 112",
                "adjtimex 159 171",
                "clock_adjtime 305 266",
                "sethostname 170 161",
                "setdomainname 171 162",
            ),
        ),
        ends="ok",
        held_by=f"{FILTER}; no capability",
        without=("filter",),
    ),
    Attempt(
        "46",
        "raising limits, priority, affinity",
        (
            "import resource as r\n"
            "kinds = (r.RLIMIT_DATA, r.RLIMIT_AS, r.RLIMIT_NOFILE, r.RLIMIT_FSIZE, r.RLIMIT_CORE)\n"
            "def lift(kind):\n"
            "    try: r.setrlimit(kind, (-1, -1))\n"
            "    except ValueError: return\n"
            "    return 'a limit was lifted'\n"
            "tries(*[lambda k=k: lift(k) for k in kinds],\n"
            "      lambda: reaches_kernel('prlimit', 302, 261, FACTS['host_pid'], 7, 0, 0),\n"
            "      lambda: reaches_kernel('setpriority', 141, 140, 0, 0, -20),\n"
            "      lambda: reaches_kernel('setpriority of all', 141, 140, 2, os.getuid(), 19),\n"
            "      lambda: reaches_kernel('sched_setaffinity', 203, 122),\n"
            "      lambda: reaches_kernel('sched_setscheduler', 144, 119),\n"
            "      lambda: reaches_kernel('ioprio_set', 251, 30))",
        ),
        ends="ok",
        held_by=f"hard limits; {FILTER}",
        without=("filter",),
    ),
)
