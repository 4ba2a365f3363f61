"""A failed block has no effect; a state can be continued any number of times."""

import pytest
from codedance.sandbox import Limits, Outcome
from codedance.sandbox.types import SessionState
from PIL import Image

from .conftest import open_isolated

FAILURES = {
    "error": ("1 / 0", Outcome.ERROR),
    "memory": ("y = [0] * 10**9", Outcome.MEMORY),
    "exit of the interpreter": ("import os; os._exit(1)", Outcome.KILLED),
}


@pytest.mark.parametrize(("last", "outcome"), FAILURES.values(), ids=FAILURES)
def test_a_failed_block_has_no_effect(isolated, picture, last, outcome):
    before = "import random\nx = [1]\nopen('f', 'w').write('one')\nprint(random.random())"
    damage = "x.append(2)\ny = 3\nopen('f', 'w').write('two')\nrandom.seed(5)\n"
    damage += "input_image.putpixel((0, 0), (9, 9, 9))\n"
    look = "print(x, 'y' in globals(), open('f').read(), input_image.getpixel((0, 0)))"
    draw = "print(random.random())"
    with (
        isolated.session([picture], seed=3) as session,
        isolated.session([picture], seed=3) as twin,
    ):
        session.run(before)
        twin.run(before)
        assert session.run(damage + last).outcome is outcome
        assert session.run(look).stdout == "[1] False one (200, 10, 30)\n"
        assert session.run(draw).stdout == twin.run(draw).stdout


TRACES = {
    "a list changed in place": ("x = [1]", "x.append(2)", "x"),
    "an array changed in place": (
        "import numpy as np\nx = np.zeros(3)",
        "x[1] = 5",
        "x.tolist()",
    ),
    "an attribute of a class": ("class A:\n    n = 0", "A.n = 1", "A.n"),
    "a name deleted": ("x = 1", "del x", "'x' in globals()"),
    "a new file": ("import os", "open('new', 'w').close()", "os.listdir('.')"),
    "a file removed": ("import os\nopen('f', 'w').close()", "os.remove('f')", "os.listdir('.')"),
    "the current folder": (
        "import os\nos.mkdir('d')",
        "os.chdir('d')",
        "os.path.basename(os.getcwd()) == 'd'",
    ),
    "the environment": ("import os", "os.environ['A'] = 'b'", "os.environ.get('A')"),
    "sys.path": ("import sys", "sys.path.insert(0, 'd')", "'d' in sys.path"),
    "a module loaded": ("import sys", "import colorsys", "'colorsys' in sys.modules"),
    "filters of warnings": (
        "import warnings",
        "warnings.simplefilter('error')",
        "warnings.filters[0][0]",
    ),
    "settings of matplotlib": (
        "import matplotlib",
        "matplotlib.rcParams['lines.linewidth'] = 9",
        "matplotlib.rcParams['lines.linewidth']",
    ),
    "an open figure": (
        "import matplotlib.pyplot as plt",
        "plt.figure()",
        "plt.get_fignums()",
    ),
    "printing options of numpy": (
        "import numpy as np",
        "np.set_printoptions(precision=1)",
        "np.array([1 / 3])",
    ),
    "a limit of Python": ("import sys", "sys.setrecursionlimit(99)", "sys.getrecursionlimit()"),
    "the draws of random": ("import random", "random.random()", "random.random()"),
    "a generator of numpy": (
        "import numpy as np\ng = np.random.default_rng()",
        "g.random()",
        "g.random()",
    ),
    "numpy's old generator": ("import numpy as np", "np.random.rand()", "np.random.rand()"),
    "OpenCV's generator": (
        "import cv2, numpy as np",
        "cv2.randu(np.zeros(3), 0, 1)",
        "cv2.randu(np.zeros(3), 0, 1).tolist()",
    ),
    "a function of a library": ("import math", "math.floor = None", "math.floor(2.5)"),
}


@pytest.mark.parametrize(("before", "damage", "look"), TRACES.values(), ids=TRACES)
def test_all_changes_of_a_failed_block_are_undone(isolated, before, damage, look):
    with isolated.session(seed=3) as session, isolated.session(seed=3) as twin:
        session.run(before)
        twin.run(before)
        assert session.run(f"{damage}\n1 / 0").outcome is Outcome.ERROR
        seen, expected = session.run(look), twin.run(look)
        assert (seen.outcome, seen.stdout) == (Outcome.OK, expected.stdout)


def test_addresses_and_folders_are_not_compared(isolated):
    """Objects have other addresses in another process; a block that prints one can be replayed."""
    code = "import os\nprint(os.getcwd(), os.path.abspath('f'))\n"
    code += "junk = [object() for _ in range({})]\nclass A: pass\nprint(A(), print, input_image)"
    digests = []
    for number in (1, 100_000):
        with isolated.session([Image.new("RGB", (2, 2))]) as session:
            execution = session.run(code.format(number))
            assert execution.is_ok
            assert " at 0x" in execution.stdout
            digests.append(execution.digest)
    assert digests[0] == digests[1]


def test_a_state_continues_after_its_process_was_killed_from_outside(isolated):
    with isolated.session() as session:
        session.run("x = [1]")
        session.kill()
        died = session.run("x.append(2)\nx")
        assert (died.outcome, died.error[:14]) == (Outcome.KILLED, "SessionKilled:")
        assert session.run("x").stdout == "[1]\n"


def test_a_timed_out_block_is_rolled_back():
    limits = Limits(wall_seconds=0.3, memory_mb=256)
    with open_isolated("full", limits, libraries=()) as sandbox, sandbox.session() as session:
        session.run("x = [1]")
        assert session.run("x.append(2)\nwhile True: pass").outcome is Outcome.TIMEOUT
        assert session.run("x").stdout == "[1]\n"


def test_many_failures_in_a_row_change_nothing(isolated):
    with isolated.session() as session:
        session.run("x = 1")
        for _ in range(3):
            assert session.run("x += 1\nmissing").outcome is Outcome.ERROR
        assert session.run("x").stdout == "1\n"


def test_a_different_replay_loses_the_state_and_reports_it(isolated):
    with isolated.session() as session:
        assert session.run("import time\nx = time.time_ns()\nprint(x)").is_ok
        assert session.run("missing").outcome is Outcome.ERROR
        lost = session.run("print(x)")
        assert lost.outcome is Outcome.KILLED
        assert lost.error.startswith("SessionLost: ")
        assert lost.stdout == ""
        assert session.run("x").error == "NameError: name 'x' is not defined, line 1"
        assert session.run("print(1)").stdout == "1\n"


def test_a_replay_that_exceeds_its_time_loses_the_state():
    """The block runs forever once half a second has passed."""
    limits = Limits(wall_seconds=0.3, memory_mb=256)
    code = "import time\nif time.time() > START + 0.5:\n    while True: pass"
    with open_isolated("full", limits, libraries=()) as sandbox, sandbox.session() as session:
        start = session.run("import time; print(time.time())").stdout.strip()
        session.close()
        with sandbox.session() as other:
            assert other.run(code.replace("START", start)).is_ok
            ends = [other.run("import time; time.sleep(60)") for _ in range(4)]
    lost = [end for end in ends if end.outcome is Outcome.KILLED]
    assert [end.error[:13] for end in lost] == ["SessionLost: "]


def test_a_snapshot_contains_only_the_successful_blocks(sandbox, picture):
    with sandbox.session([picture], seed=4) as session:
        session.run("x = 1")
        session.run("missing")
        session.run("print(x)")
        state = session.snapshot()
    assert (state.seed, state.blocks) == (4, ("x = 1", "print(x)"))
    assert len(state.output_digests) == 2
    assert len(state.image_digests) == 1


def test_a_state_can_be_continued_any_number_of_times(sandbox, picture):
    with sandbox.session([picture], seed=4) as session:
        session.run("import random\nx = [random.random()]")
        session.run("x.append(input_image.size)\nx")
        state = session.snapshot()
        original = session.run("x.append(random.random())\nx").stdout
    for _ in range(2):
        with sandbox.restore(state, [picture]) as again:
            assert again.run("x.append(random.random())\nx").stdout == original
            assert again.snapshot().blocks[:2] == state.blocks


def test_a_state_continues_in_another_sandbox(full, confined, picture):
    with full.session([picture], seed=4) as session:
        session.run("import random\nprint(random.random(), {'a', 'b', 'c'})")
        state = session.snapshot()
    with confined.restore(state, [picture]) as again:
        assert again.run("print(1)").stdout == "1\n"


def test_a_state_that_prints_its_folder_continues_in_another_sandbox(full, confined, unsafe):
    code = "import os, tempfile\nprint(os.getcwd(), tempfile.mkstemp()[1], object())"
    with full.session(seed=4) as session:
        assert session.run(code).is_ok
        state = session.snapshot()
    for other in (confined, unsafe):
        with other.restore(state) as again:
            assert again.run("print(1)").stdout == "1\n"


def test_a_state_with_other_images_is_rejected(full, picture):
    with full.session([picture]) as session:
        state = session.snapshot()
    with pytest.raises(ValueError, match="restore needs the 1 pictures"):
        full.restore(state, [Image.new("RGB", (40, 30))])
    with pytest.raises(ValueError, match="got 0 others"):
        full.restore(state)


def test_a_state_with_wrong_digests_is_lost(full):
    state = SessionState(seed=0, blocks=("print(1)",), output_digests=("0" * 64,))
    with full.restore(state) as session:
        assert session.run("print(2)").error.startswith("SessionLost: ")


def test_a_snapshot_before_the_first_run_is_the_state_itself(full):
    state = SessionState(seed=9, blocks=("x = 5",), output_digests=("not looked at",))
    with full.restore(state) as session:
        assert session.snapshot() == state
