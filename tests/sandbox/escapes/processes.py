"""Attempts 14 to 30: other processes, new ones, and traces of the parent process."""

from .attempt import FILTER, Attempt

_NO_PROC = "no /proc (full); landlock"

PROCESSES = (
    Attempt(
        "14",
        "inspect other processes in /proc",
        (
            "pids = [FACTS['host_pid'], FACTS['zygote_pid'], *range(1, 40)]\n"
            "tries(lambda: os.listdir('/proc'),\n"
            "      *[lambda p=p, n=n: open(f'/proc/{p}/{n}', 'rb').read()\n"
            "        for p in pids for n in ('cmdline', 'environ', 'maps', 'status')])",
        ),
        ends="ok",
        held_by=_NO_PROC,
        without=("landlock",),
    ),
    Attempt(
        "15",
        "its own mem, maps, environ, descriptors",
        (
            "tries(*[lambda n=n: open('/proc/self/' + n, 'rb').read(64) for n in\n"
            "        ('mem', 'maps', 'environ', 'cmdline', 'mountinfo', 'status')],\n"
            "      lambda: os.listdir('/proc/self/fd'))",
        ),
        ends="ok",
        held_by=_NO_PROC,
        without=("landlock",),
    ),
    Attempt(
        "16",
        "ptrace",
        (
            "tries(lambda: reaches_kernel('PTRACE_TRACEME', 101, 117),\n"
            "      lambda: reaches_kernel('PTRACE_ATTACH', 101, 117, 16, FACTS['host_pid'], 0, 0))",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "17",
        "read another process's memory, take its descriptors",
        (
            "tries(lambda: reaches_kernel('process_vm_readv', 310, 270, FACTS['host_pid']),\n"
            "      lambda: reaches_kernel('process_vm_writev', 311, 271, FACTS['host_pid']),\n"
            "      lambda: reaches_kernel('pidfd_open', 434, 434, 1, 0),\n"
            "      lambda: reaches_kernel('pidfd_getfd', 438, 438, -1, 0, 0),\n"
            "      lambda: reaches_kernel('kcmp', 312, 272, 1, 1, 0, 0, 0))",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "18",
        "signal all processes",
        (
            "import signal\n"
            "for target in (-1, 0):\n"
            "    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):\n"
            "        try: os.kill(target, number)\n"
            "        except OSError as error: print('refused:', error)\n"
            "print('held')",
        ),
        ends="ok killed",
        held_by="its own pid namespace (full); system-call filter, landlock (confined)",
        without=("filter", "landlock"),
    ),
    Attempt(
        "19",
        "sweep over process ids",
        (
            "import signal\n"
            "pids = [FACTS['host_pid'], FACTS['zygote_pid'], *range(2, 400)]\n"
            "others = [pid for pid in pids if pid != os.getpid()]\n"
            "tries(*[lambda p=p: os.kill(p, 0) or f'process {p}' for p in others],\n"
            "      *[lambda p=p: call(234, 131, p, p, 0) or f'thread {p}' for p in others],\n"
            "      *[lambda p=p: call(200, 130, p, 0) or f'thread {p}' for p in others])",
        ),
        ends="ok",
        held_by="its own pid namespace (full); system-call filter, landlock (confined)",
        without=("filter", "landlock"),
    ),
    Attempt(
        "20",
        "fork, vfork, clone, clone3",
        (
            "def forked(make):\n"
            "    pid = make()\n"
            "    if pid == 0: os._exit(0)\n"
            "    return f'child {pid}'\n"
            "tries(lambda: forked(os.fork), lambda: forked(lambda: os.forkpty()[0]),\n"
            "      lambda: forked(lambda: call(56, 220, 17, 0, 0, 0, 0)),\n"
            "      lambda: IS_ARM or forked(lambda: call(57, 57)),\n"
            "      lambda: forked(lambda: call(56, 220, 0x10000000 | 17, 0, 0, 0, 0)),\n"
            "      lambda: reaches_kernel('clone3', 435, 435, 0, 0))",
        ),
        ends="ok",
        held_by="process limit; system-call filter",
        without=("filter",),
        is_x86=True,
    ),
    Attempt(
        "21",
        "execute a program",
        (
            "import subprocess, shutil\n"
            "shutil.copyfile(os.__file__, 'program'); \n"
            "def spawn(): return os.posix_spawn('/bin/true', ['true'], {})\n"
            "tries(lambda: subprocess.run(['true']).args, spawn,\n"
            "      lambda: os.popen('echo hi').read(),\n"
            "      lambda: reaches_kernel('execve', 59, 221), \n"
            "      lambda: reaches_kernel('execveat', 322, 281, -1, b'', 0, 0, 0))\n"
            "os.system('true') == 0 and escaped('os.system')",
        ),
        ends="ok",
        held_by="system-call filter; landlock; nothing to execute (full)",
        without=("filter", "landlock"),
    ),
    Attempt(
        "22",
        "multiprocessing",
        (
            "import multiprocessing as m, concurrent.futures as c\n"
            "def start(kind):\n"
            "    process = m.get_context(kind).Process(target=len, args=('a',))\n"
            "    process.start()\n"
            "    return f'{kind} {process.pid}'\n"
            "tries(lambda: start('fork'), lambda: start('spawn'), lambda: start('forkserver'))",
        ),
        ends="ok",
        held_by="system-call filter; landlock",
        without=("filter", "landlock"),
    ),
    Attempt(
        "23",
        "a thread bomb",
        (
            "import threading, time\nstarted = 0\n"
            "try:\n    for started in range(200):\n"
            "        threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
            "except RuntimeError as error: print('refused:', error)\n"
            "print('held') if started <= FACTS['threads'] else escaped(started)",
        ),
        ends="ok",
        held_by="thread limit in its own user namespace (full); no threads (confined)",
        without=("filter",),
    ),
    Attempt(
        "24",
        "stop itself, so that the host waits",
        ("import signal\nos.kill(os.getpid(), signal.SIGSTOP)\nprint('held')",),
        ends="ok timeout killed",
        held_by="the host's clock",
        why_no_control="without the host's clock the test would wait forever",
    ),
    Attempt(
        "25",
        "threads, atexit hooks and timers that stay",
        (
            "import atexit, gc, signal, threading\n"
            "log, timer = [], signal.setitimer\n"
            "atexit.register(lambda: log.append('exit'))\n"
            "def alarm(*_):\n"
            "    log.append('alarm')\n"
            "    if len(log) >= 40: timer(signal.ITIMER_REAL, 0)  # or it would end the next turn\n"
            "signal.signal(signal.SIGALRM, alarm)\n"
            "timer(signal.ITIMER_REAL, 0.01, 0.01)\n"
            "signal.setitimer = lambda *_: (0.0, 0.0)\n"
            "def work():\n"
            "    while len(log) < 40: log.append('thread'); time.sleep(0.01)\n"
            "try: threading.Thread(target=work, daemon=True).start()\n"
            "except RuntimeError: pass",
            "WAIT 1.0",
            "count = len(log)\n"
            "print('held') if count < 40 else escaped(f'{count} steps between turns')",
        ),
        ends="ok error timeout",
        held_by="the host stops a session between its turns",
        without=("pause",),
    ),
)

_SCAN = """
import gc
def everything():
    seen = set()
    for holder in gc.get_objects():
        for thing in gc.get_referents(holder):
            if id(thing) not in seen and type(thing) in (str, bytes):
                seen.add(id(thing))
                yield thing
"""

SECRETS = (
    Attempt(
        "26",
        "the environment",
        ("tries(lambda: canary_in(dict(os.environ)))",),
        ends="ok",
        held_by="the zygote is executed with harmless variables",
        without=("exec",),
    ),
    Attempt(
        "27",
        "the environment as C sees it",
        (
            "environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, 'environ')\n"
            "index = 0\n"
            "while environ[index]:\n    canary_in(environ[index]); index += 1\n"
            "print('held')",
        ),
        ends="ok",
        held_by="the zygote is executed with harmless variables",
        without=("exec",),
    ),
    Attempt(
        "28",
        "the command line",
        (
            "argc, argv = ctypes.c_int(), ctypes.POINTER(ctypes.c_char_p)()\n"
            "ctypes.pythonapi.Py_GetArgcArgv(ctypes.byref(argc), ctypes.byref(argv))\n"
            "words = [argv[i] for i in range(argc.value)] + sys.argv + sys.orig_argv\n"
            "for word in words: canary_in(word)\n"
            "print('held')",
        ),
        ends="ok error killed",
        held_by="no arguments of the trainer on the zygote's command line",
        without=("exec",),
    ),
    Attempt(
        "29",
        "a scan of every object that the collector knows",
        (f"{_SCAN}\nfor thing in everything(): canary_in(thing)\nprint('held')",),
        ends="ok timeout",
        held_by="the zygote is executed, not forked from the trainer",
        without=("exec",),
    ),
    Attempt(
        "30",
        "a scan of the pages around every object and of the heap",
        (
            "import gc, mmap\n"
            "page = mmap.PAGESIZE\n"
            "def is_mapped(address):\n"
            "    return not libc.msync(ctypes.c_void_p(address), ctypes.c_size_t(page), 1)\n"
            "starts = sorted({id(thing) >> 20 << 20 for thing in gc.get_objects()})\n"
            "end = time.monotonic() + 0.6\n"
            "for start in starts:\n"
            "    for address in range(start, start + (1 << 20), page):\n"
            "        if time.monotonic() > end: break\n"
            "        if is_mapped(address): canary_in(ctypes.string_at(address, page))\n"
            "print('held')",
        ),
        ends="ok timeout killed",
        held_by="the zygote is executed, not forked from the trainer",
        without=("exec",),
    ),
)
