"""Attempts 150 to 157: memory that the kernel's limit on writable memory does not count."""

from .attempt import Attempt

_WATCH = "the host checks the resident memory"

_TOOLS = (
    "import mmap as m\n"
    "kept, MB = [], 1 << 20\n"
    "def fill(megabytes, protection, file=-1):\n"
    "    # private pages: written, then never again writable\n"
    "    size = megabytes * MB\n"
    "    flags = m.MAP_PRIVATE | (m.MAP_ANONYMOUS if file < 0 else 0)\n"
    "    address = call(9, 222, 0, size, 3, flags, file, 0)\n"
    "    ctypes.memset(ctypes.c_void_p(address), 1, size)\n"
    "    call(10, 226, address, size, protection)\n"
    "    kept.append((address, size))\n"
    "def fill_all(protection, file=-1):\n"
    "    for _ in range(FACTS['memory_mb'] // 4): fill(8, protection, file)\n"
    "    for address, size in kept:\n"
    "        for page in range(address, address + size, 4096) if protection & 1 else ():\n"
    "            assert ctypes.string_at(page, 1) == b'\\1'\n"
)
"""Fills twice the limit: 256 MB under `judging.LIMITS`, below what the address space may have."""

_JUDGED = (
    "held_mb = sum(size for _, size in kept) // MB\n"
    "escaped(f'{held_mb} MB') if held_mb >= 2 * FACTS['memory_mb'] else print('held')"
)

RESIDENT = (
    Attempt(
        "150",
        "pages that are filled, then made read-only",
        (_TOOLS, "fill_all(m.PROT_READ)", _JUDGED),
        ends="ok",
        held_by=_WATCH,
        without=("resident",),
    ),
    Attempt(
        "151",
        "pages that are filled, then made inaccessible, or executable",
        (_TOOLS, "fill_all(0)", _JUDGED, "fill_all(m.PROT_READ | m.PROT_EXEC)", _JUDGED),
        ends="ok",
        held_by=_WATCH,
        without=("resident",),
    ),
    Attempt(
        "152",
        "private pages of a file, filled, then made read-only",
        (
            _TOOLS,
            "file = os.open('x', os.O_RDWR | os.O_CREAT)\nos.ftruncate(file, 8 * MB)\n"
            "fill_all(m.PROT_READ, file)",
            _JUDGED,
        ),
        ends="ok",
        held_by=_WATCH,
        without=("resident",),
    ),
    Attempt(
        "153",
        "read-only pages, a part of them in each of several turns",
        (_TOOLS, *["fill(32, m.PROT_READ)"] * 8, _JUDGED),
        ends="ok",
        held_by=_WATCH,
        without=("resident",),
    ),
    Attempt(
        "154",
        "read-only pages that a thread fills while the block waits",
        (
            _TOOLS + "import threading\n",
            "try:\n"
            "    thread = threading.Thread(target=fill_all, args=(m.PROT_READ,), daemon=True)\n"
            "    thread.start()\n"
            "    thread.join()\n"
            "except RuntimeError:\n"
            "    fill_all(m.PROT_READ)",
            _JUDGED,
        ),
        ends="ok",
        held_by=_WATCH,
        without=("resident",),
    ),
    Attempt(
        "155",
        "a stack of a gigabyte",
        (
            "import resource\n"
            "try: resource.setrlimit(resource.RLIMIT_STACK, (1 << 30, 1 << 30))\n"
            "except ValueError: print('held')\n"
            "else: escaped(resource.getrlimit(resource.RLIMIT_STACK))",
        ),
        ends="ok",
        held_by="RLIMIT_STACK",
        without=("rlimits",),
    ),
    Attempt(
        "156",
        "huge pages of the machine's pool, which count as no process's memory",
        ("tries(lambda: call(9, 222, 0, 2 << 20, 3, 0x40022, -1, 0))",),
        ends="ok",
        held_by="system-call filter",
        why_no_control="a machine without such a pool refuses them as well",
    ),
    Attempt(
        "157",
        "buffers of the kernel: pipes and pairs of sockets, filled",
        (
            "import socket\n"
            "filled, kept = 0, []\n"
            "def pour(descriptor):\n"
            "    global filled\n"
            "    os.set_blocking(descriptor, False)\n"
            "    try:\n"
            "        while True: filled += os.write(descriptor, bytes(65_536))\n"
            "    except BlockingIOError: pass\n"
            "try:\n"
            "    while True:\n"
            "        kept.append(socket.socketpair())\n"
            "        for end in kept[-1]: pour(end.fileno())\n"
            "except OSError: pass\n"
            "most = FACTS['memory_mb'] << 20\n"
            "escaped(f'{filled >> 20} MB') if filled > most else print('held')",
        ),
        ends="ok",
        held_by="RLIMIT_NOFILE; the size of a socket's buffer cannot be changed",
        why_no_control="the descriptors of any process are bounded",
    ),
)
