"""Attempts 91 and above: planned attacks, our own."""

from .attempt import FILTER, HOST, Attempt

PLANNED = (
    Attempt(
        "91",
        "disguise its failure as infrastructure: die before a block, between blocks, in a replay",
        (
            "x = 1",
            "import threading, signal\n"
            "def late():\n    time.sleep(0.05); os._exit(0)\n"
            "try: threading.Thread(target=late, daemon=True).start()\n"
            "except RuntimeError: pass\n"
            "signal.signal(signal.SIGALRM, lambda *_: os._exit(0))\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.05); signal.setitimer = lambda *_: None",
            "WAIT 0.3",
            "x + 1",
        ),
        ends="ok killed",
        held_by="death is an outcome unless the zygote died too",
        why_no_control="a property of the host, which every attempt checks",
    ),
    Attempt(
        "92",
        "a replay that never ends, after a first run that did",
        (
            "first = time.time()",
            "while time.time() > first + 0.5: pass\nprint('quick')",
            "WAIT 0.6",
            "1 / 0",
            "import os\nprint('held')",
        ),
        ends="ok killed timeout",
        held_by="a replay has the limits of its blocks; one that overruns loses the state",
        why_no_control="a property of the host, which every attempt checks",
    ),
    Attempt(
        "93",
        "a replay with different output",
        (
            "print(time.time_ns())",
            "1 / 0",
            "print('held')",
        ),
        ends="killed",
        held_by="digests of the outputs are compared",
        why_no_control="the comparison of digests has its own tests",
    ),
    Attempt(
        "94",
        "a thread that answers in the next turn's place",
        (
            "import threading\n"
            "def answer():\n"
            "    for turn in range(2, 9):\n"
            "        time.sleep(0.05)\n"
            "        send([turn, 'ok', 'forged by a thread', '', None, []])\n"
            "try: threading.Thread(target=answer, daemon=True).start()\n"
            "except RuntimeError: answer()",
            "WAIT 0.3",
            "time.sleep(0.2); print('held')",
            "time.sleep(0.2); print('held')",
        ),
        ends="ok killed",
        held_by="turns are numbered; no thread works between turns",
        why_no_control="a reply of another turn is 65, which has one",
    ),
    Attempt(
        "95",
        "take the worker's place: answer each turn itself, claim success for code that failed",
        (
            "import gc, msgpack, struct\n"
            "def exactly(fd, n):\n"
            "    data = b''\n    while len(data) < n: data += os.read(fd, n - len(data))\n"
            "    return data\n"
            "def impostor(fd, turn):\n"
            "    while True:\n"
            "        send([turn, 'ok', 'as you like it', '', None, []])\n"
            "        length, _ = struct.unpack('!II', exactly(fd, 8))\n"
            "        turn = msgpack.unpackb(exactly(fd, length))[0]\n"
            "impostor(own_socket(), 2)",
            "print(open(FACTS['canary_file']).read())",
        ),
        ends="ok killed",
        held_by="nothing outside its session: it can only claim what it could have printed",
        why_no_control="held by its lack of access, not by one layer",
    ),
    Attempt(
        "96",
        "send descriptors: SCM_RIGHTS to the host, in flight, in circles",
        (
            "import array, socket as s\n"
            "def give(out, fds):\n"
            "    words = array.array('i', fds)\n"
            "    return out.sendmsg([b'x'], [(s.SOL_SOCKET, s.SCM_RIGHTS, words)])\n"
            "def circle():\n"
            "    a, b = s.socketpair()\n    return give(a, [a.fileno(), b.fileno()] * 100)\n"
            "host = s.socket(fileno=os.dup(own_socket()))\n"
            "tries(circle, lambda: give(host, [0] * 200))",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "97",
        "a handle on the trainer through its own socket: SO_PEERPIDFD",
        (
            "import signal, socket as s\n"
            "host = s.socket(fileno=os.dup(own_socket()))\n"
            "def peer():\n"
            "    fd = host.getsockopt(s.SOL_SOCKET, 77)\n"
            "    call(424, 424, fd, 0, 0, 0)\n    return f'signalled through {fd}'\n"
            "tries(peer, lambda: reaches_kernel('pidfd_send_signal', 424, 424, -1, 0, 0, 0))",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter", "landlock"),
    ),
    Attempt(
        "98",
        "watch files: inotify, fanotify, leases, notifications",
        (
            "import fcntl\nfd = os.open('.', os.O_RDONLY)\n"
            "tries(lambda: reaches_kernel('inotify_init1', 294, 26, 0),\n"
            "      lambda: reaches_kernel('fanotify_init', 300, 262, 0, 0),\n"
            "      lambda: fcntl.fcntl(fd, fcntl.F_NOTIFY, 1) == 0,\n"
            "      lambda: fcntl.fcntl(fd, fcntl.F_SETLEASE, 0) == 0,\n"
            "      lambda: fcntl.fcntl(fd, 8, 1) == 0, lambda: fcntl.fcntl(fd, 10, 9) == 0)",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "99",
        "change modes and times of the trainer's files, which landlock permits",
        (
            "home = FACTS['home']\n"
            "def touch(path):\n    os.utime(path, (0, 0))\n"
            "def close(path):\n    os.chmod(path, 0)\n"
            "tries(lambda: close(home + '/canary.txt'), lambda: close(home),\n"
            "      lambda: touch(home + '/canary.txt'), lambda: touch(home),\n"
            "      lambda: os.chmod(home + '/canary.txt', 0o777, follow_symlinks=True),\n"
            "      lambda: call(452, 452, -100, (home + '/canary.txt').encode(), 0, 0) or None,\n"
            "      lambda: call(280, 88, -100, (home + '/canary.txt').encode(), 0, 0) or None)",
        ),
        ends="ok",
        held_by="no such file (full); system-call filter (confined)",
        without=("filter",),
    ),
    Attempt(
        "100",
        "leave a folder that the host cannot remove: closed, deep, wide",
        (
            "os.makedirs('closed/inside'); open('closed/inside/file', 'w').close()\n"
            "os.chmod('closed/inside', 0); os.chmod('closed', 0)\n"
            "top = os.getcwd()\n"
            "for _ in range(1500):\n    os.mkdir('d'); os.chdir('d')\n"
            "os.chdir(top); os.symlink('/', 'root')\nprint('held')",
        ),
        ends="ok OSError timeout",  # a folder in a folder 1,500 times takes a slow machine long
        held_by="its tmpfs ends with it (full); the host removes without recursion (confined)",
        why_no_control="leftovers in the host's temporary folder are counted at the end",
    ),
    Attempt(
        "101",
        "remap and advise the pages of the image and of the libraries",
        (
            "for number in (4, 8, 9, 12, 14, 100, 101):\n"
            "    libc.madvise(ctypes.c_void_p(id(input_image) & ~4095), 4096, number)\n"
            "print('held')",
            "def patch(address):\n"
            "    page = address & ~4095\n"
            "    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n"
            "    if libc.mprotect(page, 4096, 7): raise OSError(ctypes.get_errno(), 'mprotect')\n"
            "    ctypes.memset(page, 0xc3, 4096)\n"
            "patch(ctypes.cast(libc.getppid, ctypes.c_void_p).value); os.getppid(); print('held')",
        ),
        ends="ok killed OSError",
        held_by="pages are its own: copies, or private to its process",
        why_no_control="a sibling and a fresh session are probed after each attempt",
    ),
    Attempt(
        "102",
        "reach the harness through frames and the collector, and lift its limits",
        (
            "import gc\nframe = sys._getframe()\n"
            "while frame:\n"
            "    for name, value in list(frame.f_locals.items()):\n"
            "        for limit in ('_limit', '_count', '_pixels', '_room', '_wall', '_cpu'):\n"
            "            if hasattr(value, limit):\n"
            "                try: setattr(value, limit, 10**9)\n"
            "                except Exception: pass\n"
            "    frame = frame.f_back\n"
            "kept = sys.stdout.buffer.raw._receive.__self__._kept\n"
            "kept._head_limit = kept._head_room = 10**9\nprint('x' * 10**6)",
        ),
        ends="killed ok",
        held_by=HOST,
        without=("checks",),
    ),
    Attempt(
        "103",
        "finish within the host's grace period, with the soft time-out masked",
        (
            "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
            "end = time.monotonic() + FACTS['wall_seconds'] + 0.6\n"
            "while time.monotonic() < end: time.sleep(0.01)\nprint('late')",
        ),
        ends="timeout",
        held_by="the host judges by its own clock",
        why_no_control="without the host's clock the test would wait forever",
    ),
    Attempt(
        "104",
        "keep a second socket's worth of memory: pairs, pipes, filled",
        (
            "import socket as s\nheld = total = 0\n"
            "try:\n"
            "    for held in range(500):\n"
            "        a, b = s.socketpair()\n"
            "        a.setblocking(False)\n"
            "        try: a.setsockopt(s.SOL_SOCKET, s.SO_SNDBUF, 1 << 30)\n"
            "        except PermissionError: pass\n"
            "        globals()[f'p{held}'] = (a, b)\n"
            "        try:\n            while True: total += a.send(bytes(1 << 16))\n"
            "        except BlockingIOError: pass\n"
            "except OSError as error: print('refused:', error)\n"
            "print('held') if total < 64 << 20 else escaped(total)",
        ),
        ends="ok",
        held_by="descriptors times the kernel's buffer",
        without=("rlimits",),
    ),
    Attempt(
        "105",
        "processor time between turns, not charged to any turn",
        (
            "import gc\nsignal = __import__('signal')\n"
            "ticks = [0]\n"
            "def burn(*_):\n"
            "    end = time.monotonic() + 0.005\n"
            "    ticks[0] += 1\n"
            "    while time.monotonic() < end: pass\n"
            "signal.signal(signal.SIGALRM, burn)\n"
            "mine = [m for n, m in sys.modules.items() if '_worker.' in n]\n"
            "worker = [m for m in mine if hasattr(m, 'signal')]\n"
            "fake = type('S', (), {'__getattr__': lambda s, n: (lambda *a, **k: None)})()\n"
            "for module in worker: module.signal = module._SIGNAL = fake\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)",
            "before = ticks[0]",
            "WAIT 1.5",
            "used = ticks[0] - before\nprint('held') if used < 30 else escaped(f'{used} times')",
        ),
        ends="ok killed timeout",
        held_by="the host stops a session between its turns",
        without=("pause",),
    ),
    Attempt(
        "106",
        "leave data for the next session in shared state: entropy, locks, names",
        (
            "import fcntl, numpy\n"
            "def lock(path):\n"
            "    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "for path in (numpy.__file__, os.__file__):\n"
            "    try: lock(path)\n    except OSError: print('refused')\n"
            "open('/dev/urandom', 'wb').write(b'seed')\n"
            "os.environ['PYTHONHASHSEED'] = os.environ['HOME'] = 'poison'\n"
            "os.umask(0o777); os.chdir('/'); print('held')",
        ),
        ends="ok OSError",
        held_by="nothing writable is shared",
        why_no_control="a sibling and a fresh session are probed after each attempt",
    ),
    Attempt(
        "107",
        "vmsplice, splice, tee, pagecache tricks",
        (
            "tries(*[lambda n=n: reaches_kernel(*n) for n in (\n"
            "    ('vmsplice', 278, 75, -1), ('splice', 275, 76, -1), ('tee', 276, 77, -1),\n"
            "    ('remap_file_pages', 216, 234), ('process_madvise', 440, 440, -1),\n"
            "    ('process_mrelease', 448, 448, -1), ('migrate_pages', 256, 238),\n"
            "    ('move_pages', 279, 239), ('set_mempolicy', 238, 237))])",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "108",
        "other ways to overrun: timers of the kernel, queued signals",
        (
            "tries(*[lambda n=n: reaches_kernel(*n) for n in (\n"
            "    ('timer_create', 222, 107), ('timerfd_create', 283, 85), ('signalfd4', 289, 74),\n"
            "    ('rt_sigqueueinfo', 129, 138), ('rt_tgsigqueueinfo', 297, 240),\n"
            "    ('waitid', 247, 95, 9), ('wait4', 61, 260, 99))])",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "109",
        "personality, syslog, quotas, swap, reboot, accounting",
        (
            "tries(*[lambda n=n: reaches_kernel(*n) for n in (\n"
            "    ('personality', 135, 92, 0x40000), ('syslog', 103, 116, 3),\n"
            "    ('quotactl', 179, 60), ('swapoff', 168, 225, b''), ('reboot', 169, 142),\n"
            "    ('acct', 163, 89, b''), ('vhangup', 153, 58), ('mlockall', 151, 230, 1),\n"
            "    ('landlock_create_ruleset', 444, 444, 0, 0, 1))])",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "110",
        "starve the neighbours: every turn sleeps, spins, or floods the host",
        (
            "import msgpack\n"
            "end = time.monotonic() + 0.5\n"
            "while time.monotonic() < end: send([2, 'ok', 'flood', '', None, []])",
            "time.sleep(0.5)",
            "print('held')",
        ),
        ends="killed ok",
        held_by="turns wait in order; frames out of turn end the session",
        why_no_control="the timing of neighbours has its own tests",
    ),
)
