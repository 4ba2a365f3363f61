"""Model code that uses or breaks the worker's protocol: the host checks everything."""

import pytest
from codedance.sandbox import Outcome

FIND_SOCKET = """
import os, socket, stat, struct, msgpack
found = []
for fd in range(3, 60):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode): found.append(fd)
    except OSError: pass
def send(header, blob=b'', lengths=None):
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    prefix = struct.pack('!II', *(lengths or (len(packed), len(blob))))
    os.write(found[0], prefix + packed + blob)
"""

FORGERIES = {
    "65 another turn": "send([99, 'ok', 'forged', '', None, []])",
    "65 no such outcome": "send([2, 'infrastructure', '', '', None, []])",
    "65 a set-up failure": "send(['failed', 'walls'])",
    "65 outcome and error disagree": "send([2, 'ok', '', '', 'E', []])",
    "65 fields missing": "send([2, 'ok'])",
    "66 an oversized header": "send(b'', lengths=(1 << 31, 0))",
    "67 nested arrays": "send(b'\\x91' * 5000)",
    "67 an array that claims to be huge": "send(b'\\xdd\\xff\\xff\\xff\\xff')",
    "67 a map that claims to be huge": "send(b'\\xdf\\xff\\xff\\xff\\xff')",
    "68 a pickle": "import pickle; send(pickle.dumps(print))",
    "69 text too long": "send([2, 'ok', 'a' * 20_000, '', None, []])",
    "70 a picture that lies": "send([2, 'ok', '', '', None, [[1000, 1000]]], b'rgbx')",
    "70 negative sizes": "send([2, 'ok', '', '', None, [[-1, -3]]], b'rgbx' * 3)",
    "70 sizes that are no numbers": "send([2, 'ok', '', '', None, [['1', 1.0]]], b'rgbx')",
    "70 true as a size": "send([2, 'ok', '', '', None, [[True, True]]], b'rgbx')",
    "71 a gigabyte of pixels": "send([2, 'ok', '', '', None, []], lengths=(9, 1 << 30))",
    "71 too many pictures": "send([2, 'ok', '', '', None, [[1, 1]] * 9], b'rgbx' * 9)",
    "own 19 noise": "os.write(found[0], bytes(range(256)) * 4)",
    "73 every descriptor closed": "os.closerange(0, 60)",
    "79 abort": "os.abort()",
    "79 a segmentation fault": "import ctypes; ctypes.string_at(0)",
    "79 an exit": "os._exit(0)",
    "own 20 a kill": "import signal; os.kill(os.getpid(), signal.SIGSEGV); ctypes.string_at(0)",
}


@pytest.mark.parametrize("code", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_or_broken_reply_kills_only_its_own_session(isolated, code):
    with isolated.session() as sibling, isolated.session() as session:
        sibling.run("x = 41")
        session.run(FIND_SOCKET + "mine = 6")
        execution = session.run("import ctypes\n" + code)
        assert execution.outcome is Outcome.KILLED, execution
        assert execution.error.startswith("SessionKilled: ")
        assert session.run("mine + 1").stdout == "7\n"
        assert sibling.run("x + 1").stdout == "42\n"


def test_a_valid_forgery_achieves_no_more_than_a_print(isolated):
    """It may claim anything for itself; the true reply is then a turn late and ends the session."""
    with isolated.session() as session:
        session.run(FIND_SOCKET)
        forged = session.run("send([2, 'ok', 'forged', '', None, []])")
        assert (forged.outcome, forged.stdout) == (Outcome.OK, "forged")
        after = session.run("print('after')")
        assert after.outcome is Outcome.KILLED or after.stdout == "after\n"
        assert session.run("print('sound')").stdout in ("sound\n", "")


def test_a_reply_in_advance_is_rejected(isolated):
    """It would be the reply to a block that the model has not written yet."""
    code = "def reply(turn):\n"
    code += "    packed = msgpack.packb([turn, 'ok', 'in advance', '', None, []])\n"
    code += "    return struct.pack('!II', len(packed), 0) + packed\n"
    code += "os.write(found[0], reply(2) + reply(3))"
    with isolated.session() as session:
        session.run(FIND_SOCKET)
        assert session.run(code).stdout == "in advance"
        assert session.run("print('asked')").outcome is Outcome.KILLED


def test_a_session_that_floods_the_host_with_frames_is_ended(isolated):
    code = "while True: send([2, 'ok', 'flood', '', None, []])"
    with isolated.session() as session:
        session.run(FIND_SOCKET)
        assert session.run(code).stdout == "flood"
        assert session.run("print(1)").outcome is Outcome.KILLED


def test_patched_msgpack_and_clock_change_nothing_outside(isolated):
    """72."""
    code = "import msgpack, time, sys\nmsgpack.packb = msgpack.unpackb = None\n"
    code += "time.monotonic = time.time = lambda: 0.0\nsys.modules['msgpack'] = None"
    with isolated.session() as session:
        assert session.run(code).is_ok
        execution = session.run("print(1)")
        assert (execution.stdout, execution.wall_seconds > 0) == ("1\n", True)
    with isolated.session() as fresh:
        assert fresh.run("import time; print(time.time() > 0)").stdout == "True\n"


TAMPERINGS = {
    "77 builtins": "import builtins; builtins.len = lambda x: -1; builtins.print = None",
    "78 numpy": "import numpy as np; np.array = np.zeros = lambda *a: 'poison'",
    "78 PIL": "from PIL import Image; Image.new = Image.fromarray = lambda *a: 'poison'",
    "78 the modules": "import sys; sys.modules['numpy'] = None; sys.path.clear()",
    "78 the worker's own code": "import sys\nfor n, m in list(sys.modules.items()):\n"
    "    if 'worker' in n: m.__dict__.clear()",
    "77 the namespace": "globals().clear()",
}


@pytest.mark.parametrize("code", TAMPERINGS.values(), ids=TAMPERINGS)
def test_tampering_ends_with_its_session(isolated, code):
    probe = "import numpy as np\nfrom PIL import Image\n"
    probe += "print(len('ab'), np.zeros(2).sum(), Image.new('L', (1, 2)).size)"
    with isolated.session() as session:
        session.run(code)
        session.run("1")
    with isolated.session() as fresh:
        assert fresh.run(probe).stdout == "2 0.0 (1, 2)\n"
