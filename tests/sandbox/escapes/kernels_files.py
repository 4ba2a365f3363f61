"""Attempts 120 to 127: files of the host, where the kernel's landlock has fewer rights."""

from .attempt import Attempt

_NAMELESS = "no such file (full); landlock, system-call filter (confined)"

_ALLOCATED = (
    "def allocated():\n"
    "    return sum(os.stat(name).st_blocks for name in os.listdir('.')) * 512\n"
    "most = FACTS['disk_mb'] << 20\n"
)
_DEAF = (
    "import signal\n"
    "for number in (signal.SIGXFSZ, signal.SIGALRM, signal.SIGPROF):\n"
    "    signal.signal(number, signal.SIG_IGN)\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
)

KERNELS_FILES = (
    Attempt(
        "120",
        "cut a file of the host by its name",
        (
            "paths = [FACTS['home'] + name for name in ('/canary.txt', '/picture.png')]\n"
            "tries(*[lambda p=p: os.truncate(p, 0) or f'cut {p}' for p in paths],\n"
            "      *[lambda p=p: call(76, 45, p.encode(), 0) or f'cut {p}' for p in paths])",
        ),
        ends="ok",
        held_by=_NAMELESS,
        without=("filter", "landlock"),
    ),
    Attempt(
        "121",
        "cut a file of the host by opening it: to read, with access mode 3, by creat, by openat2",
        (
            "import struct\n"
            "paths = [FACTS['home'] + name for name in ('/canary.txt', '/picture.png')]\n"
            "def opened(path, flags):\n"
            "    fd = os.open(path, flags)\n"
            "    os.close(fd)\n"
            "    return f'opened {path} with {flags:#x}'\n"
            "def opened2(path, flags):\n"
            "    how = ctypes.create_string_buffer(struct.pack('=QQQ', flags, 0, 0), 24)\n"
            "    call(437, 437, -100, path.encode(), how, 24)\n"
            "    return f'openat2 {path}'\n"
            "kinds = (os.O_TRUNC, os.O_TRUNC | 3, 3, os.O_TRUNC | os.O_WRONLY, os.O_CREAT | 3)\n"
            "tries(*[lambda p=p, k=k: opened(p, k) for p in paths for k in kinds],\n"
            "      *[lambda p=p, k=k: opened2(p, k) for p in paths for k in kinds],\n"
            "      *[lambda p=p: None if IS_ARM else call(85, 85, p.encode(), 0) for p in paths],\n"
            "      lambda: os.ftruncate(os.open(os.__file__, os.O_RDONLY), 0) or 'cut')",
        ),
        ends="ok",
        held_by=_NAMELESS,
        without=("filter", "landlock"),
    ),
    Attempt(
        "122",
        "reserve far more disk than its limit before anything can look: fallocate",
        (
            f"{_ALLOCATED}{_DEAF}"
            "modes = {}\n"
            "try:\n"
            "    for n in range(40):\n"
            "        fd = os.open(f'f{n}', os.O_CREAT | os.O_RDWR)\n"
            "        for mode in (0, 1, 0x10, 0x20):\n"
            "            try: call(285, 47, fd, mode, 0, most) ; modes[mode] = n\n"
            "            except OSError as error: print('refused:', mode, error)\n"
            "        os.close(fd)\n"
            "except OSError as error: print('refused:', error)\n"
            "print(allocated(), modes)\n"
            "escaped(allocated()) if allocated() > 4 * most else print('held')",
        ),
        ends="ok OSError killed",
        held_by="size of its own tmpfs (full); system-call filter (confined)",
        why_no_control="the control is the disk of the machine that runs it",
    ),
    Attempt(
        "123",
        "sparse files of the largest size, filled through shared mappings, signals blocked",
        (
            f"import mmap\n{_ALLOCATED}{_DEAF}"
            "n = 0\n"
            "try:\n"
            "    while n << 20 < 1 << 30 and allocated() < 1 << 30:\n"
            "        fd = os.open(f'f{n}', os.O_CREAT | os.O_RDWR)\n"
            "        os.ftruncate(fd, most)\n"
            "        pages = mmap.mmap(fd, most)\n"
            "        os.close(fd)\n"
            "        pages[::4096] = bytes(len(pages) // 4096)\n"
            "        pages.close()\n"
            "        n += FACTS['disk_mb']\n"
            "except OSError as error: print('refused:', error)\n"
            "escaped(n) if allocated() >= 1 << 30 else print('held')",
        ),
        ends="ok OSError killed",  # a page for which its tmpfs has no room is SIGBUS
        held_by="size of its own tmpfs (full); the watchdog kills above twice the limit (confined)",
        why_no_control="the control is the disk of the machine that runs it",
    ),
    Attempt(
        "124",
        "write to many files at once with every signal blocked and the worker's check disarmed",
        (
            f"{_ALLOCATED}{_DEAF}"
            "for module in [m for n, m in sys.modules.items() if n.endswith('disk_use')]:\n"
            "    module.OwnDisk.look = lambda self, frame: None\n"
            "data, n = bytes(most // 2), 0\n"
            "try:\n"
            "    while n * len(data) < 1 << 30:\n"
            "        with open(f'f{n}', 'wb', 0) as file: file.write(data)\n"
            "        n += 1\n"
            "except OSError as error: print('refused:', error)\n"
            "escaped(n) if n * len(data) >= 1 << 30 else print('held')",
        ),
        ends="ok OSError killed",
        held_by="size of its own tmpfs (full); the watchdog kills above twice the limit (confined)",
        why_no_control="the control is the disk of the machine that runs it",
    ),
    Attempt(
        "125",
        "read where links outside lead: names of data, snapshots, runs",
        (
            "links = [FACTS['link'], '/proc/self/exe', '/proc/self/cwd',\n"
            "         f\"/proc/{FACTS['host_pid']}/exe\", f\"/proc/{FACTS['host_pid']}/cwd\"]\n"
            "def target(path):\n"
            "    found = os.readlink(path)\n"
            "    return canary_in(found) or f'{path} leads to {found}'\n"
            "tries(*[lambda p=p: target(p) for p in links],\n"
            "      lambda: canary_in(os.path.realpath(FACTS['link'])))",
        ),
        ends="ok",
        held_by="no such file (full); system-call filter (confined)",
        without=("filter",),
    ),
    Attempt(
        "126",
        "lead the host's look at its folder outside: a link in place of a folder, again and again",
        (
            "os.makedirs('a/b/c'); os.symlink(FACTS['home'], 'l')\n"
            "end = time.monotonic() + 0.2\n"
            "while time.monotonic() < end:\n"
            "    os.rename('a', 'x'); os.rename('l', 'a')\n"
            "    os.rename('a', 'l'); os.rename('x', 'a')\n"
            "os.rename('a', 'x'); os.rename('l', 'a'); os.symlink('/', 'a2'); print('held')",
        ),
        ends="ok killed OSError",
        held_by="its tmpfs ends with it (full); the watchdog follows no link (confined)",
        why_no_control="the files of the host are compared after each attempt",
    ),
    Attempt(
        "127",
        "hand files of the host on: by link, by rename, by a descriptor that only names them",
        (
            "path = FACTS['canary_file']\n"
            "fd = os.open(path, os.O_PATH) if os.path.exists(path) else -1\n"
            "tries(lambda: os.link(path, 'mine') or open('mine').read(),\n"
            "      lambda: os.rename(path, 'mine') or 'renamed',\n"
            "      lambda: call(265, 37, fd, b'', -100, b'mine', 0x1000) or 'linked',\n"
            "      lambda: call(326, 285, fd, 0, os.open('m', os.O_CREAT | os.O_RDWR), 0, 64, 0),\n"
            "      lambda: os.pread(fd, 64, 0), lambda: os.ftruncate(fd, 0) or 'cut',\n"
            "      lambda: call(316, 276, -100, path.encode(), -100, b'm', 2) or 'exchanged')",
        ),
        ends="ok",
        held_by=_NAMELESS,
        without=("landlock",),
    ),
)
