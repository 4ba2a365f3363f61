"""Attempts 47 to 64: memory, output, images, recursion, and time."""

from .attempt import Attempt

_DATA = "RLIMIT_DATA and RLIMIT_AS"

RESOURCES = (
    Attempt(
        "47",
        "a list bomb",
        (
            "kept, most = [], 3 * FACTS['memory_mb'] // 2 + 32\n"
            "while len(kept) < most: kept.append([0] * 131_072)\n"
            "escaped(f'{len(kept)} MB')",
        ),
        ends="memory killed",
        held_by=f"{_DATA}; the host checks the resident memory",
        without=("rlimits", "resident"),
    ),
    Attempt(
        "48",
        "a 100 GB array",
        ("import numpy as np\nx = np.empty(100 * 10**9 // 8)\nescaped('mapped')",),
        ends="memory",
        held_by=_DATA,
        why_no_control="the kernel's own rule on overcommitting refuses it as well",
    ),
    Attempt(
        "49",
        "a mapping bomb: private, shared, growing stacks",
        (
            "import mmap\n"
            "def bomb(flags):\n"
            "    maps = [mmap.mmap(-1, 1 << 26, flags=flags) for _ in range(40)]\n"
            "    return f'{len(maps) * 64} MB'\n"
            "def grow():\n"
            "    return call(9, 222, 0, 4096, 3, 0x122, -1, 0)\n"
            "tries(lambda: bomb(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),\n"
            "      lambda: bomb(mmap.MAP_SHARED | mmap.MAP_ANONYMOUS), grow)",
        ),
        ends="ok",
        held_by=f"{_DATA}; system-call filter",
        without=("rlimits", "filter"),
    ),
    Attempt(
        "50",
        "memory without a file: memfd, SysV, message queues",
        (
            "tries(lambda: reaches_kernel('memfd_create', 319, 279),\n"
            "      lambda: reaches_kernel('memfd_secret', 447, 447),\n"
            "      lambda: reaches_kernel('shmget', 29, 194, 0, 4096, 0o1666),\n"
            "      lambda: reaches_kernel('semget', 64, 190, 0, 1, 0o1666),\n"
            "      lambda: reaches_kernel('msgget', 68, 186, 0, 0o1666),\n"
            "      lambda: reaches_kernel('mq_open', 240, 180),\n"
            "      lambda: os.memfd_create('x'))",
        ),
        ends="ok",
        held_by="system-call filter",
        without=("filter",),
    ),
    Attempt(
        "51",
        "descriptors",
        ("opened = [os.dup(0) for _ in range(2000)]\nescaped(f'{len(opened)} descriptors')",),
        ends="OSError",
        held_by="RLIMIT_NOFILE",
        without=("rlimits",),
    ),
    Attempt(
        "52",
        "pipes, and larger ones",
        (
            "import fcntl\n"
            "tries(lambda: fcntl.fcntl(os.pipe()[0], 1031, 1 << 20))\n"
            "opened = [os.pipe() for _ in range(600)]\n"
            "escaped(f'{len(opened)} pipes')",
        ),
        ends="OSError",
        held_by="RLIMIT_NOFILE; system-call filter",
        without=("filter",),
    ),
    Attempt(
        "53",
        "a gigabyte of output",
        ("for _ in range(1000): print('a' * 10**6)\nprint('held')", "print('held')"),
        ends="ok",
        held_by="the stream keeps head and tail; the host checks the length",
        why_no_control="the length of every reply is checked after each attempt",
    ),
    Attempt(
        "54",
        "raw writes to the standard descriptors",
        (
            "for fd in (0, 1, 2):\n"
            "    for _ in range(100):\n"
            "        try: os.write(fd, b'x' * 100_000)\n"
            "        except OSError: pass\n"
            "    try: os.ftruncate(fd, 0)\n"
            "    except OSError: pass\n"
            "print('held')",
        ),
        ends="ok",
        held_by="the standard descriptors are /dev/null; Python's output is bounded like print's",
        why_no_control="they would reach only the zygote's log, whose length is checked",
    ),
    Attempt(
        "55",
        "a huge repr",
        ("class R:\n    def __repr__(self): return 'a' * 50_000_000\nprint('held')\nR()",),
        ends="ok memory",
        held_by="the stream keeps head and tail; the host checks the length",
        why_no_control="the length of every reply is checked after each attempt",
    ),
    Attempt(
        "56",
        "a decompression bomb",
        (
            "import io, struct, zlib\nfrom PIL import Image\nImage.MAX_IMAGE_PIXELS = None\n"
            "def chunk(k, d):\n"
            "    return struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d))\n"
            "head = chunk(b'IHDR', struct.pack('>IIBBBBB', 50_000, 50_000, 8, 0, 0, 0, 0))\n"
            "body = chunk(b'IDAT', zlib.compress(bytes(10**7)))\n"
            "Image.open(io.BytesIO(b'\\x89PNG\\r\\n\\x1a\\n' + head + body)).load()\n"
            "escaped('decoded')",
        ),
        ends="memory OSError killed",
        held_by=f"{_DATA}; the host decodes no image format",
        why_no_control="2.5 GB of pixels are more than the container may use",
    ),
    Attempt(
        "57",
        "an image of 30,000 × 30,000",
        (
            "from PIL import Image\n"
            "display(Image.new('L', (6000, 6000)))\n"
            "print('held')\n"
            "Image.new('RGB', (30_000, 30_000)); escaped('made')",
        ),
        ends="memory",
        held_by=_DATA,
        why_no_control="2.7 GB of pixels are more than the container may use",
    ),
    Attempt(
        "58",
        "deep recursion, in Python and in C",
        (
            "import json\n"
            "def down(n): return down(n + 1)\n"
            "try: down(0)\nexcept RecursionError: print('refused')\n"
            "sys.setrecursionlimit(10**9)\n"
            "def sort(_): return sorted([1], key=sort)\n"
            "sort(0)",
        ),
        ends="killed memory timeout RecursionError",
        held_by="a session of its own, replayed",
        why_no_control="it kills only its own process; the next turn works",
    ),
)

_CLOCK = "the alarm repeats; the host kills after its grace"

TIME = (
    Attempt(
        "59",
        "catching the soft time-out",
        ("while True:\n    try:\n        while True: x = 1\n    except BaseException: pass",),
        ends="timeout",
        held_by=_CLOCK,
        why_no_control="without the host's clock the test would wait forever",
    ),
    Attempt(
        "60",
        "masking signals and cancelling timers",
        (
            "import signal\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
            "for timer in (0, 1, 2): signal.setitimer(timer, 0)\n"
            "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
            "signal.signal(signal.SIGPROF, signal.SIG_IGN)\n"
            "while True: pass",
        ),
        ends="timeout",
        held_by=_CLOCK,
        why_no_control="without the host's clock the test would wait forever",
    ),
    Attempt(
        "61",
        "a loop in C",
        ("import re\nre.match('(a*)*b', 'a' * 64)",),
        ends="timeout",
        held_by=_CLOCK,
        why_no_control="without the host's clock the test would wait forever",
    ),
    Attempt(
        "62",
        "a deadlock",
        ("import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",),
        ends="timeout",
        held_by=_CLOCK,
        why_no_control="without the host's clock the test would wait forever",
    ),
    Attempt(
        "63",
        "waiting for input",
        (
            "try: input()\nexcept EOFError: print('refused')\n"
            "print(sys.stdin.read(), os.read(0, 9))\nprint('held')",
        ),
        ends="ok",
        held_by="standard input is empty",
        why_no_control="there is no input in a container",
    ),
    Attempt(
        "64",
        "exceeding the processor time, in threads and where signals have no effect",
        (
            "import hashlib, signal, threading\n"
            "signal.setitimer(signal.ITIMER_PROF, 0)\n"
            "def burn():\n    while True: hashlib.sha256(bytes(1 << 22)).digest()\n"
            "try:\n    for _ in range(3): threading.Thread(target=burn, daemon=True).start()\n"
            "except RuntimeError: pass\n"
            "burn()",
        ),
        ends="timeout",
        held_by="the host reads the kernel's own clock of the process",
        why_no_control="without the host's clock the test would wait forever",
    ),
)
