"""Attempts 190 to 196: what code can learn of the task, of its host and of other sessions."""

from .attempt import FILTER, Attempt

_FRAMES = """
frame, seeds = sys._getframe().f_back, []
while frame:
    seeds += [int(frame.f_locals['seed'])] if 'seed' in frame.f_locals else []
    frame = frame.f_back
"""
_STATFS = """
def free(name, x86, arm, subject):
    room = ctypes.create_string_buffer(256)
    call(x86, arm, subject, room)
    return f'{name}: {room.raw[8:40].hex()}'
"""
_PACKAGE = """
import glob
tops = {os.path.dirname(os.path.realpath(os.__file__)), *map(os.path.realpath, sys.path)}
tops |= {*glob.glob('/usr/lib/python3*'), *glob.glob('/usr/local/lib/python3*')}
tops |= {f'{top}/{name}-packages' for top in tops for name in ('site', 'dist')}
for top in sorted(tops):
    for path in glob.glob(f'{top}/*codedance*') + glob.glob(f'{top}/__pycache__/*codedance*'):
        for name in (path, *glob.glob(f'{path}/*'), *glob.glob(f'{path}/*/*.py')):
            try: text = open(name, 'rb').read()
            except OSError: continue
            text and escaped(name)
print('held')
"""
_CREDENTIALS = """
import struct
def peer(option, size=12):
    room, length = ctypes.create_string_buffer(256), ctypes.c_uint(size)
    if libc.getsockopt(own_socket(), 1, option, room, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), 'getsockopt')
    return room.raw[:length.value]
tries(lambda: struct.unpack('iii', peer(17))[0], lambda: peer(31, 200), lambda: peer(59, 200))
"""

LEARNED = (
    Attempt(
        "190",
        "find the task's id by the session's seed, which frames and generators hold",
        (
            f"{_FRAMES}import random\n"
            "is_common = random.getstate() == random.Random(0).getstate()\n"
            "set(seeds) == {0} and is_common or escaped(seeds)\n"
            "print('held')",
        ),
        ends="ok",
        held_by="every episode's session has the same seed",
        why_no_control="that an episode passes no other has its own test",
    ),
    Attempt(
        "191",
        "read copies of our package: other interpreters', eggs, metadata, editable installs",
        (_PACKAGE,),
        ends="ok",
        held_by="our package is hidden wherever it lies",
        why_no_control="hiding it has its own test",
    ),
    Attempt(
        "192",
        "read load, memory and number of processes of the host: sysinfo",
        ("tries(lambda: call(99, 179, ctypes.create_string_buffer(256)) == 0 and 'sysinfo')",),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "193",
        "read size and free space of the host's disk: statfs, fstatfs",
        (
            f"{_STATFS}"
            "tries(lambda: free('/', 137, 43, b'/'), lambda: free('/usr', 137, 43, b'/usr/lib'),\n"
            "      lambda: free('null', 138, 44, os.open('/dev/null', 0)))",
        ),
        ends="ok",
        held_by=FILTER,
        without=("filter",),
    ),
    Attempt(
        "194",
        "read what the image's file held beside its pixels",
        (
            "for one in input_images:\n"
            "    canary_in(repr(vars(one))); canary_in(repr(dict(one.getexif())))\n"
            "    hasattr(one, 'filename') and escaped(one.filename)\n"
            "print('held')",
        ),
        ends="ok",
        held_by="only pixels are passed to the session",
        why_no_control="no layer to remove: the session's memory never holds the rest",
    ),
    Attempt(
        "195",
        "read names and sizes in the folders of other sessions",
        (
            "place, own = os.path.split(os.getcwdb().decode())\n"
            "pids = range(max(1, os.getpid() - 3_000), os.getpid() + 3_000)\n"
            "token = own.partition('-')[2]\n"
            "for name in {*map(str, pids), *[f'{pid}-{token}' for pid in pids]} - {own}:\n"
            "    try: os.stat(f'{place}/{name}'); FACTS['tier'] != 'full' and escaped(name)\n"
            "    except OSError: pass\n"
            "tries(lambda: os.listdir(place) if FACTS['tier'] != 'full' else [])",
        ),
        ends="ok",
        held_by="a mount namespace (full); a name that cannot be guessed, landlock (confined)",
        without=("landlock",),
    ),
    Attempt(
        "196",
        "learn process, user and groups of the trainer from its end of the socket",
        (_CREDENTIALS,),
        ends="ok",
        held_by=f"its own pid namespace (full); {FILTER} (confined)",
        without=("filter",),
    ),
)
