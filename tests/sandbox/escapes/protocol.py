"""Attempts 65 to 79: the worker's protocol and persistent changes."""

from .attempt import HOST, Attempt

_FORGED = "killed"

PROTOCOL = (
    Attempt(
        "65",
        "a forged reply: of another turn, of our failure, of a set-up failure",
        (
            "send(['failed', 'walls'])",
            "send([99, 'ok', 'forged', '', None, []])",
            "send([2, 'infrastructure', '', '', None, []])",
        ),
        ends=_FORGED,
        held_by=HOST,
        without=("checks",),
    ),
    Attempt(
        "65b",
        "outcome and error that disagree",
        ("send([2, 'ok', '', '', 'E', []])",),
        ends=_FORGED,
        held_by=HOST,
        without=("checks",),
    ),
    Attempt(
        "66",
        "an oversized header",
        ("send(b'', lengths=(1 << 31, 0))",),
        ends=_FORGED,
        held_by=HOST,
        without=("checks",),
    ),
    Attempt(
        "67",
        "msgpack bombs: nested, and claiming to be huge",
        (
            "send(b'\\x91' * 5000)",
            "send(b'\\xdd\\xff\\xff\\xff\\xff')",
            "send(b'\\xdf\\xff\\xff\\xff\\xff')",
        ),
        ends=_FORGED,
        held_by=HOST,
        without=("checks",),
    ),
    Attempt(
        "68",
        "a pickle gadget",
        (
            "import pickle\n"
            "class G:\n"
            "    def __reduce__(self): return (open, (FACTS['home'] + '/gadget', 'w'))\n"
            "send(pickle.dumps(G()))",
        ),
        ends=_FORGED,
        held_by="the host never unpickles",
        why_no_control="the host has no unpickling to put back",
    ),
    Attempt(
        "69",
        "lone surrogates and text that is too long",
        (
            "print('\\ud800' * 50, '\\udfff', '\\0')",
            "kept = sys.stdout.buffer.raw._receive.__self__._kept\n"
            "kept._head_limit = kept._head_room = 10**9\nprint('\\ud800' * 100_000)",
        ),
        ends="killed ok",
        held_by=HOST,
        why_no_control="the worker's encoder, which it would break, affects only the session",
    ),
    Attempt(
        "70",
        "images with a false size",
        (
            "from PIL import Image\n"
            "class Liar(Image.Image):\n"
            "    size = property(lambda self: (1000, 5))\n"
            "    mode = property(lambda self: 'RGB')\n"
            "    def tobytes(self, *_): return b'abc'\n"
            "display(Liar())",
            "send([2, 'ok', '', '', None, [[-1, -3]]], b'rgbx' * 3)",
            "send([2, 'ok', '', '', None, [[1 << 40, 1 << 40]]], b'rgbx' * 3)",
        ),
        ends=_FORGED,
        held_by=HOST,
        without=("checks",),
    ),
    Attempt(
        "71",
        "a gigabyte of pixels, and too many images",
        (
            "send([2, 'ok', '', '', None, []], lengths=(9, 1 << 30))",
            "send([2, 'ok', '', '', None, [[1, 1]] * 99], b'rgbx' * 99)",
        ),
        ends=_FORGED,
        held_by=HOST,
        without=("checks",),
    ),
    Attempt(
        "72",
        "patched msgpack and clock",
        (
            "import msgpack\nmsgpack.packb = msgpack.unpackb = None\n"
            "time.monotonic = time.time = time.perf_counter = lambda: 0.0\n"
            "sys.modules['msgpack'] = None",
            "print('held')",
        ),
        ends="ok",
        held_by="the host uses its own clock",
        why_no_control="it harms only its own session",
    ),
    Attempt(
        "73",
        "closing every descriptor",
        ("os.closerange(0, 64)\nprint('held')",),
        ends="killed",
        held_by="a closed socket ends the session",
        why_no_control="it kills only its own process; the next turn works",
    ),
    Attempt(
        "74",
        "truncating shared memory under the host",
        (
            "def cut(fd):\n"
            "    os.ftruncate(fd, 0)\n"
            "    return f'descriptor {fd}'\n"
            "tries(*[lambda f=f: cut(f) for f in range(64)])",
        ),
        ends="ok",
        held_by="no shared memory is left open; the input's is sealed",
        why_no_control="there is no shared memory to cut; seals have their own test",
    ),
    Attempt(
        "75",
        "writing to the input's memory",
        (
            "import gc, mmap\nfrom PIL import Image\n"
            "input_image.paste((0, 0, 0), (0, 0, *input_image.size))\n"
            "maps = [thing for thing in gc.get_objects() if isinstance(thing, mmap.mmap)]\n"
            "def spoil(fd):\n"
            "    mapped = mmap.mmap(fd, 12, prot=mmap.PROT_WRITE | mmap.PROT_READ)\n"
            "    mapped[:12] = bytes(12)\n"
            "    return f'descriptor {fd}'\n"
            "print(maps and escaped(maps))\n"
            "tries(*[lambda f=f: spoil(f) for f in range(64)])",
        ),
        ends="ok",
        held_by="a copy; the memory behind it is sealed and closed",
        why_no_control="seals have their own test; a sibling's image is compared here",
    ),
    Attempt(
        "76",
        "tricks of __repr__, __str__, __format__, __class__",
        (
            "class S(str):\n"
            "    def __str__(self): return self\n"
            "    def __len__(self): return -5\n"
            "    def encode(self, *_): raise KeyError\n"
            "class R:\n    def __repr__(self): return S('text')\n"
            "print(S('x'), R())\nsys.stdout.write(S('y'))\nR()",
            "class E(Exception):\n"
            "    def __str__(self): return S('e' * 10**6)\n"
            "E.__name__ = S('Name')\nE.__module__ = 'cv2'\nraise E",
            "class B:\n    def __repr__(self): raise SystemExit('bye')\nB()",
            "class T:\n    def __repr__(self): raise GeneratorExit\nT()",
        ),
        ends="error GeneratorExit",
        held_by="the worker copies text; the host checks it",
        why_no_control="it harms only its own session",
    ),
)

STATE = (
    Attempt(
        "77",
        "tampering with builtins, for the next session",
        (
            "import builtins\n"
            "builtins.len = lambda *_: -1\nbuiltins.print = builtins.repr = None\n"
            "builtins.open = builtins.__import__ = None",
        ),
        ends="ok killed",
        held_by="a process of its own; the next one is forked from the untouched zygote",
        without=("process",),
    ),
    Attempt(
        "78",
        "poisoning numpy, PIL, modules and worker, for the next session",
        (
            "import numpy as np\nfrom PIL import Image\n"
            "np.array = np.zeros = np.sum = lambda *a, **k: 'poison'\n"
            "Image.new = Image.fromarray = Image.frombytes = lambda *a, **k: 'poison'\n"
            "for name, module in list(sys.modules.items()):\n"
            "    if 'worker' in name: module.__dict__.clear()\n"
            "sys.modules['random'] = None\nsys.path.clear()\nsys.meta_path.clear()",
        ),
        ends="ok killed",
        held_by="a process of its own; the next one is forked from the untouched zygote",
        without=("process",),
    ),
    Attempt(
        "79",
        "ending the interpreter: _exit, abort, segmentation fault, SIGKILL",
        (
            "os._exit(0)",
            "os.abort()",
            "ctypes.string_at(0)",
            "import signal\nos.kill(os.getpid(), signal.SIGKILL)\nctypes.string_at(0)",
        ),
        ends="killed",
        held_by="death is an outcome; the state is replayed",
        why_no_control="it kills only its own process; the next turn works",
    ),
)
