"""Attempts 197 to 215: names, sockets, folders and limits that the host does not expect."""

from .attempt import FILTER, HOST, Attempt

_OWN = "it harms only its own session"
_WAITS_FOREVER = "without the host's clock the test would wait forever"
_MASKED = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"

_THIRTY_TWO_BITS = """
import mmap
page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
page.write(bytes.fromhex('b814000000cd80c3'))  # getpid of 32-bit programs
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
escaped(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
"""
_MAKE = """
home = FACTS['home']
open('own', 'w').close()
def made(act, *arguments):
    act(*arguments)
    return f'{act.__name__} in the home'
def unnamed():
    os.close(os.open(home, os.O_TMPFILE | os.O_RDWR))
    return 'an unnamed file'
def exchange():
    call(316, 276, -100, b'own', -100, FACTS['canary_file'].encode(), 2)
    return canary_in(open('own').read())
tries(lambda: made(os.mkdir, home + '/folder'), lambda: made(os.symlink, 'x', home + '/link'),
      lambda: made(os.link, 'own', home + '/hard'), lambda: made(os.mkfifo, home + '/pipe'),
      lambda: made(os.rename, 'own', home + '/moved'), unnamed, exchange,
      lambda: made(os.rename, home + '/picture.png', 'mine'),
      lambda: made(os.remove, home + '/picture.png'))
"""
_PATH_ONLY = """
place, name = os.path.split(FACTS['canary_file'])
folder = os.open(place, os.O_PATH | os.O_DIRECTORY)
file = os.open(FACTS['canary_file'], os.O_PATH)
def read(path, **options):
    return canary_in(os.read(os.open(path, os.O_RDONLY, **options), 200))
def enter():
    os.fchdir(folder)
    return read(name)
tries(lambda: os.listdir(folder), lambda: read(name, dir_fd=folder), enter,
      lambda: canary_in(os.read(file, 200)), lambda: read(f'/proc/self/fd/{file}'),
      lambda: read(f'/dev/fd/{file}'), lambda: read(f'/proc/self/fd/{folder}/{name}'),
      lambda: read(f'/proc/thread-self/fd/{file}'))
"""
_ODD_NAMES = """
for odd in (b'\\n', b'\\r\\n', b'\\x1b]0;x\\x07', b'\\xff\\xfe', b'-rf', b' ', b'\\xe2\\x80\\xae',
            b'%s%n', b'0', b'1-0', b'gone-1-1', b'x' * 255):
    os.mkdir(b'in ' + odd[:250]); open(b'in ' + odd[:250] + b'/' + odd, 'w').close()
print('held')
"""
_LINKS = """
os.mkdir('d'); os.symlink(FACTS['home'], 'd/home'); os.symlink(FACTS['canary_file'], 'd/file')
os.symlink('..', 'd/up'); os.symlink('/', 'root'); os.symlink('self', 'self')
os.mkdir('a'); os.symlink(FACTS['home'], 'b')
try:
    for _ in range(3_000): call(316, 276, -100, b'a', -100, b'b', 2)
except OSError as error: print(error.strerror)
print('held')
"""
_NEWER = """
allowed = {436, 437, 439, 449, 452}
def reach(number):
    return reaches_kernel(f'call {number}', number, number, -1, 0, 0, 0, 0, 0)
tries(*[lambda n=n: reach(n) for n in range(424, 600) if n not in allowed])
"""
_SYNCS = """
def syncs(name, x86, arm):
    try: call(x86, arm, *((9999,) if name != 'msync' else (1, 1, 99)))
    except OSError as error:
        if error.errno in (errno.EBADF, errno.EINVAL) and FACTS['tier'] != 'full':
            return f'{name} reached the kernel'
tries(lambda: syncs('fsync', 74, 82), lambda: syncs('fdatasync', 75, 83),
      lambda: syncs('msync', 26, 227))
"""
_LOWERED = """
import resource as r
for kind in ('NOFILE', 'DATA', 'AS', 'FSIZE', 'SIGPENDING', 'STACK', 'CPU', 'NPROC'):
    number = getattr(r, 'RLIMIT_' + kind, 11)  # SIGPENDING has no name in Python
    try: r.setrlimit(number, (1 if kind == 'CPU' else 0, r.getrlimit(number)[1]))
    except (OSError, ValueError) as error: pass
"""

UNFORESEEN = (
    Attempt(
        "197",
        "a name of its process that forges the kernel's account of it",
        (f"{_MASKED}call(157, 167, 15, b'x) Z 0 0 0\\n0 0', 0, 0, 0)\nwhile True: pass",),
        ends="timeout",
        held_by="the host reads clocks and tables without names",
        why_no_control=_WAITS_FOREVER,
    ),
    Attempt(
        "198",
        "calls of 32-bit programs, through their interrupt",
        (_THIRTY_TWO_BITS,),
        ends="killed",
        held_by=FILTER,
        why_no_control="kernels built without 32-bit programs refuse it by themselves",
        is_x86=True,
    ),
    Attempt(
        "199",
        "let every signal write into the protocol",
        (
            "import signal\nos.set_blocking(own_socket(), False)\n"
            "signal.set_wakeup_fd(own_socket(), warn_on_full_buffer=False)\n"
            "signal.signal(signal.SIGUSR1, lambda *_: None)\n"
            "for _ in range(64): signal.raise_signal(signal.SIGUSR1)",
            "print('held')",
        ),
        ends="ok killed",
        held_by=HOST,
        why_no_control=_OWN,
    ),
    Attempt(
        "200",
        "close one half of the connection, then the other",
        (
            "import socket; socket.socket(fileno=os.dup(own_socket())).shutdown(socket.SHUT_RD)",
            "import socket; socket.socket(fileno=os.dup(own_socket())).shutdown(socket.SHUT_WR)",
            "print('held')",
        ),
        ends="ok killed",
        held_by="a closed socket ends the session",
        why_no_control=_OWN,
    ),
    Attempt(
        "201",
        "reply, then read nothing: the next block is larger than the socket's buffer",
        (
            f"{_MASKED}send([2, 'ok', 'done', '', None, []])\nwhile True: time.sleep(9)",
            f"'{'a' * 900_000}'",
            "print('held')",
        ),
        ends="ok killed timeout",
        held_by="the host checks its clock while it sends",
        why_no_control=_WAITS_FOREVER,
    ),
    Attempt(
        "202",
        "files with odd names: lines, escapes, other encodings, names of the host's own",
        (_ODD_NAMES,),
        ends="ok",
        held_by="its tmpfs ends with it (full); names are never interpreted (confined)",
        why_no_control="leftovers in the host's temporary folder are counted at the end",
    ),
    Attempt(
        "203",
        "links to the trainer's folder, exchanged with folders, for checks and removal to follow",
        (_LINKS,),
        ends="ok OSError killed timeout",
        held_by="its tmpfs ends with it (full); the host follows no link (confined)",
        why_no_control="the trainer's folder is compared after each attempt",
    ),
    Attempt(
        "204",
        "leave a program with its user's rights for others: set-user-id by the mode of creation",
        (
            "os.close(os.open('program', os.O_CREAT | os.O_WRONLY, 0o6755))\n"
            "mode = os.stat('..').st_mode\n"
            "FACTS['tier'] != 'full' and mode & 0o077 and escaped(oct(mode))\n"
            "print('held')",
        ),
        ends="ok",
        held_by="its tmpfs is its own and nosuid (full); a closed folder above it (confined)",
        why_no_control="it would need another user of the host to run it",
    ),
    Attempt(
        "205",
        "make, move and exchange files in an open folder of the trainer",
        (_MAKE,),
        ends="ok",
        held_by="no such file in the mount namespace (full); landlock",
        without=("landlock",),
    ),
    Attempt(
        "206",
        "descriptors without access as the base of other calls",
        (_PATH_ONLY,),
        ends="ok FileNotFoundError",
        held_by="no such file in the mount namespace (full); landlock",
        without=("landlock",),
    ),
    Attempt(
        "207",
        "audit hooks that fail on every event, in this turn and the next",
        (
            "class Stop(BaseException): pass\n"
            "def hook(event, arguments):\n    if event != 'sys.addaudithook': raise Stop(event)\n"
            "sys.addaudithook(hook)",
            "print('held')",
        ),
        ends="ok killed Exception",
        held_by="a process of its own; the next one is forked from the untouched zygote",
        why_no_control=_OWN,
    ),
    Attempt(
        "208",
        "a working folder that is gone",
        (
            "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')",
            "1 / 0",
            "print('held')",
        ),
        ends="ok killed FileNotFoundError",
        held_by="the worker needs no working folder after its start",
        why_no_control=_OWN,
    ),
    Attempt(
        "209",
        "limits lowered until the worker cannot reply",
        (_LOWERED, "print('held')"),
        ends="ok killed memory timeout OSError MemoryError",
        held_by="death is an outcome unless the zygote died too",
        why_no_control=_OWN,
    ),
    Attempt(
        "210",
        "work in a handler that runs when the host continues the session",
        (
            "import signal\n"
            "def work(*_):\n    while True: pass\n"
            "signal.signal(signal.SIGCONT, work)",
            "print('held')",
        ),
        ends="timeout killed",
        held_by="the host reads the kernel's own clock of the process",
        why_no_control=_WAITS_FOREVER,
    ),
    Attempt(
        "211",
        "control characters in output, in an error and in the name of its class",
        (
            "text = '\\x1b]52;c;eA==\\x07 \\x9b2J \\0 \\u202e \\r[/] </script>'\n"
            "print(text, 'held'); print(text, file=sys.stderr)\n"
            "raise type(text.replace('\\0', ''), (OSError,), {})(text)",
        ),
        ends="ok error",
        held_by="text is escaped where it is printed, logged or shown",
        why_no_control="that has its own test",
    ),
    Attempt(
        "212",
        "calls that newer kernels added: every number from 424 to 599",
        (_NEWER,),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "213",
        "images of one row and of one column, and one whose pixels change while it is sent",
        (
            "from PIL import Image\nimport numpy as np\n"
            "for size in ((1, 200_000), (200_000, 1)): display(Image.new('RGB', size))\n"
            "odd = np.zeros((9, 9, 3), np.uint8); display(odd)\n"
            "odd.resize((3, 3, 3), refcheck=False)\n"
            "print('held')",
        ),
        ends="ok",
        held_by=f"the worker copies images; {HOST}",
        why_no_control="the size of every reply is checked after each attempt",
    ),
    Attempt(
        "214",
        "make the host's disk write at once, so that others wait: fsync, fdatasync, msync",
        (_SYNCS,),
        ends="ok",
        held_by=f"its own tmpfs (full); {FILTER} (confined)",
        without=("filter",),
    ),
    Attempt(
        "215",
        "a handle on the trainer and its groups by its own socket, used for nothing yet",
        (
            "room, size = ctypes.create_string_buffer(64), ctypes.c_uint(64)\n"
            "def handle(option):\n"
            "    if libc.getsockopt(own_socket(), 1, option, room, ctypes.byref(size)):\n"
            "        raise OSError(ctypes.get_errno(), 'getsockopt')\n"
            "    return f'option {option}'\n"
            "tries(lambda: handle(77), lambda: handle(59), lambda: handle(17))",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
)
