"""Attempts 128 to 141: sibling sessions, the zygote and other processes of the host."""

from .attempt import FILTER, Attempt

_VOTE = "siblings of a group could vote through it"

_LIBRARY_PAGE = (
    "import mmap, numpy, threading\n"
    "file = open(numpy.__file__, 'rb')\n"
    "page = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)\n"
    "import numpy as np\n"
    "address = np.frombuffer(page, 'u1').ctypes.data\n"
    "word = int(np.frombuffer(page, '<u4')[0])\n"
    "class Moment(ctypes.Structure): _fields_ = [('s', ctypes.c_long), ('n', ctypes.c_long)]\n"
    "soon = Moment(0, 20_000_000)\n"
    "late = Moment(int(time.time()) + 1, 0)\n"
)

_GROUPS = (
    "import fcntl, signal, struct\n"
    "pids = [0, -1, 1, FACTS['host_pid'], FACTS['zygote_pid'], -FACTS['zygote_pid']]\n"
    "own = os.getpid()\n"
)

KERNELS_NEIGHBOURS = (
    Attempt(
        "128",
        "signal its process group: by kill, killpg, and as the owner of a descriptor",
        (
            f"{_GROUPS}"
            "fd = own_socket()\n"
            "owner = struct.pack('ii', 2, 0)\n"
            "harmless = signal.SIGCONT\n"
            "def done(*_): return 'signalled'\n"
            "tries(*[lambda p=p: os.kill(p, harmless) or p for p in pids if p != own],\n"
            "      lambda: os.killpg(0, harmless) or 'group', lambda: call(200, 130, 0, 18) or 1,\n"
            "      lambda: fcntl.fcntl(fd, 8, 0) or 'F_SETOWN',\n"
            "      lambda: fcntl.fcntl(fd, 15, owner) and 'F_SETOWN_EX',\n"
            "      lambda: fcntl.fcntl(fd, fcntl.F_GETOWN) and 'F_GETOWN',\n"
            "      lambda: call(129, 138, -1, 18, 0) or 'sigqueue',\n"
            "      lambda: call(62, 129, 0, 18) or 'kill',\n"
            "      lambda: call(62, 129, 0x1_0000_0000, 18) or 'kill with a high half')",
        ),
        ends="ok",
        held_by=f"{FILTER}; its own process group",
        without=("filter", "landlock"),
    ),
    Attempt(
        "129",
        "kill its process group at once",
        ("import signal\nos.kill(0, signal.SIGKILL)\nprint('held')",),
        ends="PermissionError killed",
        held_by=f"{FILTER}; its own process group",
        why_no_control="18 has one, of the same signal",
    ),
    Attempt(
        "130",
        "move between process groups and sessions, take the terminal",
        (
            f"{_GROUPS}"
            "tries(*[lambda p=p: os.setpgid(0, p) or 'setpgid' for p in pids if p > 0],\n"
            "      lambda: os.setsid() or 'setsid', lambda: os.setpgrp() or 'setpgrp',\n"
            "      *[lambda p=p: os.getpgid(p) and f'group of {p}' for p in pids if p > 1],\n"
            "      *[lambda p=p: os.getsid(p) and f'session of {p}' for p in pids if p > 1],\n"
            "      lambda: os.tcsetpgrp(own_socket(), own) or 'tcsetpgrp',\n"
            "      lambda: reaches_kernel('TIOCSPGRP', 16, 29, 0, 0x5410, 0),\n"
            "      lambda: reaches_kernel('pdeathsig', 157, 167, 1, 9, 0, 0, 0))",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "131",
        "have the kernel signal others: timers, message queues, handles, asynchronous descriptors",
        (
            "import fcntl\nfd = own_socket()\n"
            "tries(lambda: reaches_kernel('timer_create', 222, 107, 1, 0, 0),\n"
            "      lambda: reaches_kernel('mq_notify', 244, 184, fd, 0),\n"
            "      lambda: reaches_kernel('pidfd_send_signal', 424, 424, fd, 0, 0, 0),\n"
            "      lambda: reaches_kernel('tgsigqueue', 297, 240, FACTS['host_pid'], 1, 0, 0),\n"
            "      lambda: reaches_kernel('FIOASYNC', 16, 29, fd, 0x5452, b'1234'),\n"
            "      lambda: reaches_kernel('SIOCSPGRP', 16, 29, fd, 0x8902, b'1234'),\n"
            "      lambda: fcntl.fcntl(fd, fcntl.F_SETSIG, 9) == 0)",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "132",
        "datagrams with an address: path and abstract sockets of the host",
        (
            "import socket as s\n"
            "def pair(kind): return s.socketpair(s.AF_UNIX, kind)[0]\n"
            "def sent(kind, address): return pair(kind).sendto(b'ballot', address)\n"
            "def sent2(kind, address): return pair(kind).sendmsg([b'x'], [], 0, address)\n"
            "kinds = (s.SOCK_DGRAM, s.SOCK_STREAM, s.SOCK_SEQPACKET, s.SOCK_RAW)\n"
            "tried = [(k, a) for k in kinds for a in FACTS['datagrams']]\n"
            "tries(*[lambda k=k, a=a: sent(k, a) and None for k, a in tried],\n"
            "      *[lambda k=k, a=a: sent2(k, a) and None for k, a in tried])\n"
            "a, b = s.socketpair(); a.send(b'own'); assert b.recv(3) == b'own'",
        ),
        ends="ok",
        held_by=f"{FILTER}; its own network namespace and no such file (full)",
        without=("filter", "landlock"),
    ),
    Attempt(
        "133",
        f"locks on a file of the libraries: {_VOTE}",
        (
            "import fcntl, numpy, struct\n"
            "one, two = [os.open(numpy.__file__, os.O_RDONLY) for _ in range(2)]\n"
            "def conflict(command, request, kind):\n"
            "    lock = struct.pack('hhqqi', kind, 0, 0, 0, 0) + bytes(8)\n"
            "    return fcntl.fcntl(two, request, lock)\n"
            "def whole():\n"
            "    fcntl.flock(one, fcntl.LOCK_EX)\n"
            "    try: fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "    except BlockingIOError: return 'a lock is seen by another descriptor'\n"
            "def described():\n"
            "    read = struct.pack('hhqqi', fcntl.F_RDLCK, 0, 0, 0, 0) + bytes(8)\n"
            "    ask = struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 0, 0) + bytes(8)\n"
            "    fcntl.fcntl(one, 37, read)\n"
            "    kind = struct.unpack_from('h', fcntl.fcntl(two, 36, ask))[0]\n"
            "    if kind != fcntl.F_UNLCK: return 'a lock of a descriptor is seen'\n"
            "tries(whole, described)",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "134",
        f"a futex on a page of the libraries: {_VOTE}",
        (
            f"{_LIBRARY_PAGE}"
            "def waits(op, moment):\n"
            "    try: call(202, 98, ctypes.c_void_p(address), op, word,\n"
            "              ctypes.byref(moment), 0, -1)\n"
            "    except OSError as error:\n"
            "        if error.errno != errno.ETIMEDOUT: raise\n"
            "    return f'waited with {op}'\n"
            "def wakes():\n"
            "    woken = []\n"
            "    def wait():\n"
            "        try: waits(9 | 256, late)\n"
            "        except OSError as error: print(error)\n"
            "    try: threading.Thread(target=wait, daemon=True).start()\n"
            "    except RuntimeError: return\n"
            "    for _ in range(20):\n"
            "        time.sleep(0.005)\n"
            "        if call(202, 98, ctypes.c_void_p(address), 1, 9, 0, 0, 0): return 'woken'\n"
            "tries(lambda: waits(0, soon), lambda: waits(9 | 256, late), wakes,\n"
            "      lambda: reaches_kernel('futex_waitv', 449, 449, 0, 1, 0, 0, 0),\n"
            "      lambda: reaches_kernel('futex_wait', 455, 455, ctypes.c_void_p(address)),\n"
            "      lambda: reaches_kernel('lock_pi', 202, 98, ctypes.c_void_p(address), 6))",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "135",
        f"what the page cache holds of the libraries: {_VOTE}",
        (
            f"{_LIBRARY_PAGE}"
            "vector = ctypes.create_string_buffer(1)\n"
            "def resident():\n"
            "    call(27, 232, ctypes.c_void_p(address), 4096, vector)\n"
            "    return 'mincore'\n"
            "tries(lambda: os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT), resident,\n"
            "      lambda: reaches_kernel('cachestat', 451, 451, file.fileno(), 0, 0, 0),\n"
            "      lambda: reaches_kernel('readahead', 187, 213, file.fileno(), 0, 4096),\n"
            "      lambda: call(28, 233, ctypes.c_void_p(address), 4096, 21) or 'MADV_PAGEOUT',\n"
            "      lambda: call(28, 233, ctypes.c_void_p(address), 4096, 20) or 'MADV_COLD',\n"
            "      lambda: call(28, 233, ctypes.c_void_p(address), 4096, 12) or 'MADV_MERGEABLE',\n"
            "      lambda: call(28, 233, ctypes.c_void_p(address), 4096, 22) or 'MADV_POPULATE')\n"
            "assert os.preadv(file.fileno(), [bytearray(1)], 0) == 1",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "136",
        f"clocks and settings of other processes: {_VOTE}",
        (
            "own = os.getpid()\n"
            "pids = [p for p in (FACTS['host_pid'], FACTS['zygote_pid']) if p != own]\n"
            "def clock(pid): return time.clock_gettime((~pid << 3) | 2) and f'clock of {pid}'\n"
            "def at(pid, x86, arm):\n"
            "    return call(x86, arm, pid, 128, ctypes.create_string_buffer(128)) * 0 + pid\n"
            "tries(*[lambda p=p: clock(p) for p in pids],\n"
            "      *[lambda p=p: call(229, 114, (~p << 3) | 2, 0) or p for p in pids],\n"
            "      *[lambda p=p: at(p, 204, 123) for p in pids],\n"
            "      *[lambda p=p: call(145, 120, p) or p for p in pids],\n"
            "      *[lambda p=p: reaches_kernel('getpriority', 140, 141, 0, p) for p in pids],\n"
            "      *[lambda p=p: reaches_kernel('ioprio_get', 252, 31, 1, p) for p in pids])\n"
            "assert time.process_time() > 0 and time.thread_time() > 0\n"
            "assert os.sched_getaffinity(0) and time.clock_gettime((~own << 3) | 2) > 0",
        ),
        ends="ok",
        held_by="its own pid namespace (full); system-call filter (confined)",
        without=("filter",),
    ),
    Attempt(
        "137",
        "seeds and plans of other sessions in the memory that the zygote passed on",
        (
            "import gc\n"
            "page, many = 4096, 1 << 20\n"
            "libc.sbrk.restype = ctypes.c_void_p\n"
            "libc.pwrite.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t,\n"
            "                        ctypes.c_long]\n"
            "file = os.open(os.environ.get('TMPDIR', '/tmp') + '/copy', os.O_CREAT | os.O_RDWR)\n"
            "def look(address, size):\n"
            "    count = libc.pwrite(file, address, size, 0)  # an error where nothing is mapped\n"
            "    data = os.pread(file, count, 0) if count > 0 else b''\n"
            "    at = data.find(b'seed')\n"
            "    while at >= 0:\n"
            "        for word in re.findall(rb'[0-9]{15,25}', data[at:at + 40]):\n"
            "            if hashlib.sha256(word).hexdigest() == FACTS['seed_digest']:\n"
            "                escaped('the seed of a sibling')\n"
            "        at = data.find(b'seed', at + 1)\n"
            "    return len(data)\n"
            "end, seen = time.monotonic() + 0.7, 0\n"
            "top = libc.sbrk(ctypes.c_long(0)) // page * page\n"
            "for size in (many, page):\n"
            "    while time.monotonic() < end and look(top - size, size) == size:\n"
            "        top -= size; seen += size\n"
            "for start in sorted({id(thing) // many * many for thing in gc.get_objects()}):\n"
            "    if time.monotonic() < end: seen += look(start, many)\n"
            "print(seen >> 20, 'MB'); seen > 8 * many and print('held')",
        ),
        ends="ok timeout",
        held_by="a session's plan goes to the session, never to the zygote",
        without=("exec",),
    ),
    Attempt(
        "138",
        "robust lists and thread ids of the kernel on a page of the libraries",
        (
            f"{_LIBRARY_PAGE}"
            "tries(lambda: call(274, 100, FACTS['host_pid'], ctypes.byref(ctypes.c_void_p()),\n"
            "                   ctypes.byref(ctypes.c_size_t())) or 'robust list of another',\n"
            "      lambda: call(202, 98, ctypes.c_void_p(address), 5, 1, 1,\n"
            "                   ctypes.c_void_p(address), 0) and 'wake_op',\n"
            "      lambda: call(202, 98, ctypes.c_void_p(address), 3, 1, 1,\n"
            "                   ctypes.c_void_p(address), 0) and 'requeue')\n"
            "call(218, 96, ctypes.c_void_p(address)); print('held')",
        ),
        ends="ok",
        held_by=f"{FILTER}: nobody waits on shared memory",
        why_no_control="134 shows that no one waits; without waiters a wake tells nothing",
    ),
)
