"""The contract of a session, on every backend and isolation level."""

import threading

import pytest
from codedance.sandbox import Outcome, SandboxError
from PIL import Image

from .conftest import SMALL


def run(sandbox, *blocks, images=()):
    """Run blocks in one session; return the last execution."""
    with sandbox.session(images) as session:
        return [session.run(block) for block in blocks][-1]


def test_memory_and_disk_are_the_sessions_own(sandbox):
    """The host's would differ from run to run, and tell of its other programs."""
    code = """
import os, shutil
pages = os.sysconf("SC_PHYS_PAGES"), os.sysconf(os.sysconf_names["SC_AVPHYS_PAGES"])
print({count * os.sysconf("SC_PAGE_SIZE") >> 20 for count in pages})
print(shutil.disk_usage(".").total >> 20, os.fstatvfs(os.open("/dev/null", 0)).f_bavail > 0)
shutil.disk_usage("missing")
"""
    with sandbox.session() as session:
        execution = session.run(code)
    assert execution.stdout == f"{{{SMALL.memory_mb}}}\n{SMALL.disk_mb} True\n"
    assert execution.error.startswith("FileNotFoundError")


def test_printed_text_is_returned(sandbox):
    execution = run(sandbox, "print(2 + 3)")
    assert (execution.outcome, execution.stdout, execution.stderr) == (Outcome.OK, "5\n", "")
    assert execution.error is None
    assert execution.wall_seconds > 0


def test_variables_persist_from_block_to_block(sandbox):
    assert run(sandbox, "x = [1]", "x.append(2)", "print(x)").stdout == "[1, 2]\n"


def test_the_last_expression_is_shown(sandbox):
    assert run(sandbox, "x = 'a'\nx").stdout == "'a'\n"


def test_none_shows_nothing(sandbox):
    assert run(sandbox, "None").is_silent


def test_an_error_has_its_kind_and_the_models_own_line(sandbox):
    execution = run(sandbox, "a = 1\n\nprint(a)\nmissing + 1")
    assert execution.outcome is Outcome.ERROR
    assert execution.error == "NameError: name 'missing' is not defined, line 4"
    assert execution.stdout == "1\n"


def test_an_error_in_an_earlier_function_has_the_line_of_the_call(sandbox):
    execution = run(sandbox, "def f():\n\n\n    return 1 / 0", "y = 1\nf()")
    assert execution.error == "ZeroDivisionError: division by zero, line 2"


def test_an_error_inside_a_library_has_the_models_line(sandbox):
    execution = run(sandbox, "import json\njson.loads('{')")
    assert execution.error.startswith("JSONDecodeError: ")
    assert execution.error.endswith(", line 2")


TRACEBACKS = {
    "one frame says it all": ("x = 1\n1 / 0", ""),
    "a function": (
        "def f(x):\n    return 1 / x\nf(0)",
        "Traceback (your own code):\n  line 3: f(0)\n  line 2, in f: return 1 / x\n",
    ),
    "no frame of a library": (
        "import json\ndef read(t):\n    return json.loads(t)\nread('{')",
        "Traceback (your own code):\n  line 4: read('{')\n"
        "  line 3, in read: return json.loads(t)\n",
    ),
    "a comprehension is one line": ("[1 / i for i in (1, 0)]", ""),
    "a string": (
        "exec('x = 1\\n1 / 0')",
        "Traceback (your own code):\n  line 1: exec('x = 1\\n1 / 0')\n  a string, line 2\n",
    ),
    "a chain": (
        "try:\n    {}['a']\nexcept KeyError as error:\n    raise ValueError('no') from error",
        "Traceback (your own code):\n  line 2: {}['a']\nKeyError: 'a'\nand then:\n"
        "  line 4: raise ValueError('no') from error\n",
    ),
    "a chain that is hidden": (
        "try:\n    {}['a']\nexcept KeyError:\n    raise ValueError('no') from None",
        "",
    ),
    "a syntax error in a string": ("x = 1\neval('1 +')", ""),
}


@pytest.mark.parametrize(("code", "traceback"), TRACEBACKS.values(), ids=TRACEBACKS)
def test_a_traceback_shows_the_models_own_frames(sandbox, code, traceback):
    execution = run(sandbox, code)
    assert execution.outcome is Outcome.ERROR
    assert execution.stderr == traceback


def test_a_traceback_names_lines_of_earlier_blocks(sandbox):
    execution = run(sandbox, "def f():\n    return missing", "y = 1\nf()")
    assert execution.error.endswith(", line 2")
    assert execution.stderr == (
        "Traceback (your own code):\n  line 2: f()\n"
        "  an earlier block, line 2, in f: return missing\n"
    )


def test_a_traceback_names_modules_written_by_the_model(sandbox):
    write = "open('mine.py', 'w').write('def f():\\n    return 1 / 0\\n')"
    execution = run(
        sandbox, write, "import sys, os\nsys.path.append(os.getcwd())\nimport mine\nmine.f()"
    )
    assert execution.stderr.endswith("  line 4: mine.f()\n  mine.py, line 2, in f: return 1 / 0\n")


def test_an_infinite_traceback_is_shortened(sandbox):
    execution = run(sandbox, "def f(n): return f(n + 1)\nf(0)")
    assert len(execution.stderr.splitlines()) == 10
    assert " more frames]\n" in execution.stderr


def test_a_syntax_error_has_its_line(sandbox):
    assert run(sandbox, "x = 1\ny = = 2").error == "SyntaxError: invalid syntax, line 2"


def test_an_error_is_one_bounded_line(sandbox):
    error = run(sandbox, "raise ValueError('a\\nb' * 10_000)").error
    assert "\n" not in error
    assert len(error) < 500


def test_an_exception_whose_text_raises_is_still_an_error(sandbox):
    code = "class E(Exception):\n    def __str__(self): raise KeyError\nraise E"
    assert run(sandbox, code).outcome is Outcome.ERROR


@pytest.mark.parametrize(
    "code", ["exit()", "quit()", "import sys; sys.exit(3)", "raise SystemExit"]
)
def test_exit_ends_the_block_but_not_the_session(sandbox, code):
    with sandbox.session() as session:
        session.run("x = 7")
        execution = session.run(f"print('before')\n{code}\nprint('after')")
        assert (execution.outcome, execution.stdout) == (Outcome.OK, "before\n")
        assert session.run("x").stdout == "7\n"


def test_the_message_of_exit_is_on_standard_error(sandbox):
    assert run(sandbox, "import sys; sys.exit('no digits')").stderr == "no digits\n"


def test_standard_error_is_separate(sandbox):
    execution = run(sandbox, "import sys; print('e', file=sys.stderr); print('o')")
    assert (execution.stdout, execution.stderr) == ("o\n", "e\n")


def test_bytes_written_to_the_buffer_are_text(sandbox):
    assert run(sandbox, "import sys; sys.stdout.buffer.write('é'.encode()); None").stdout == "é"


def test_lone_surrogates_are_printed_with_backslashes(sandbox):
    assert run(sandbox, "print('\\ud800')").stdout == "\\ud800\n"


def test_code_with_lone_surrogates_is_an_error_of_the_code(sandbox):
    assert run(sandbox, "x = '\ud800'").outcome is Outcome.ERROR


@pytest.mark.parametrize("code", ["", "\n\n", "# only a comment", "x\0y", "(" * 300])
def test_odd_code_has_an_outcome(sandbox, code):
    assert run(sandbox, code).outcome in (Outcome.OK, Outcome.ERROR, Outcome.MEMORY)


def test_code_of_any_length_has_an_outcome(sandbox):
    assert run(sandbox, "x = 1\n" * 20_000 + "print(x)").stdout == "1\n"
    assert run(sandbox, "#" * 2_000_000).outcome is Outcome.ERROR


def test_long_output_is_cut_with_a_note(sandbox):
    execution = run(sandbox, "print('a' * 5_000)")
    assert execution.outcome is Outcome.OK
    half = "a" * 1_000
    assert execution.stdout == f"{half}\n… 3,001 characters were cut …\n{half[1:]}\n"


def test_many_lone_surrogates_stay_within_the_limit(sandbox):
    execution = run(sandbox, "print('\\ud800' * 1_999)")
    assert execution.outcome is Outcome.OK
    assert len(execution.stdout) < 2_100


def test_input_reaches_the_end_of_file(sandbox):
    assert run(sandbox, "input()").error == "EOFError: EOF when reading a line, line 1"


def test_a_redirected_output_ends_with_its_block(sandbox):
    execution = run(sandbox, "import sys, io; sys.stdout = io.StringIO()", "print('back')")
    assert execution.stdout == "back\n"


def test_classes_and_dataclasses_find_their_module(sandbox):
    code = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nP(1)"
    assert run(sandbox, code).stdout == "P(x=1)\n"


def test_the_images_are_available_by_their_names(sandbox, picture):
    other = Image.new("RGB", (5, 6))
    code = "print(input_image.size, [i.size for i in input_images], input_image.getpixel((3, 2)))"
    execution = run(sandbox, code, images=[picture, other])
    assert execution.stdout == "(40, 30) [(40, 30), (5, 6)] (1, 2, 3)\n"


def test_a_session_without_images_is_valid(sandbox):
    assert run(sandbox, "print(input_image, input_images)").stdout == "None []\n"


def test_the_pixels_are_returned_unchanged(sandbox, picture):
    (back,) = run(sandbox, "input_image", images=[picture]).images
    assert (back.mode, back.size, back.tobytes()) == ("RGB", (40, 30), picture.tobytes())


def test_a_tiny_image_is_not_enlarged(sandbox, picture):
    (back,) = run(sandbox, "input_image.crop((3, 2, 4, 3))", images=[picture]).images
    assert (back.size, back.getpixel((0, 0))) == ((1, 1), (1, 2, 3))


def test_random_sources_follow_the_seed(sandbox):
    code = "import random, numpy as np\n"
    code += "print(random.random(), np.random.rand(), np.random.default_rng().random())"
    seen = []
    for seed in (1, 1, 2):
        with sandbox.session(seed=seed) as session:
            seen.append(session.run(code).stdout)
    assert seen[0] == seen[1] != seen[2]


SOURCES = {
    "random": "import random\nprint(random.random(), random.Random().random())",
    "random seeded anew": "import random\nrandom.seed()\nprint(random.random())",
    "numpy's old generator": "import numpy as np\nprint(np.random.rand(), "
    "np.random.RandomState().rand())",
    "numpy seeded anew": "import numpy as np\nnp.random.seed()\nprint(np.random.rand())",
    "numpy's new generator": "import numpy as np\nprint(np.random.default_rng().random())",
    "OpenCV": "import cv2, numpy as np\nprint(cv2.randu(np.zeros((1, 3)), 0, 1))",
    "the system": "import os, secrets, uuid\n"
    "print(os.urandom(4), secrets.token_hex(4), uuid.uuid4(), secrets.randbelow(10**9))",
    "names of temporary files": "import tempfile, os\n"
    "print(os.path.basename(tempfile.mkstemp()[1]))",
}


@pytest.mark.parametrize("code", SOURCES.values(), ids=SOURCES)
def test_every_random_source_follows_the_seed(sandbox, code):
    seen = []
    for seed in (1, 1, 2):
        with sandbox.session(seed=seed) as session:
            seen.append(session.run(code).stdout)
    assert seen[0] == seen[1] != seen[2]
    assert seen[0]


def test_the_time_zone_is_utc(sandbox):
    assert run(sandbox, "import time; print(time.tzname[0])").stdout == "UTC\n"


def test_hashes_are_the_same_in_every_worker(confined, unsafe):
    """A replay after the zygote's death iterates over sets in the same order."""
    code = "print(hash('a'), list({'one', 'two', 'three'}))"
    assert run(confined, code).stdout == run(unsafe, code).stdout


def test_files_persist_between_blocks_and_are_removed_with_the_session(sandbox):
    write = "open('note.txt', 'w').write('hello')"
    assert run(sandbox, write, "print(open('note.txt').read())").stdout == "hello\n"
    assert "FileNotFoundError" in run(sandbox, "open('note.txt')").error


def test_closing_twice_is_harmless_and_running_afterwards_is_rejected(sandbox):
    session = sandbox.session()
    session.close()
    session.close()
    with pytest.raises(SandboxError, match="closed"):
        session.run("1")


def test_a_dead_interpreter_is_an_outcome(sandbox):
    with sandbox.session() as session:
        session.run("x = 5")
        execution = session.run("import os\nos._exit(0)")
        assert execution.outcome is Outcome.KILLED
        assert execution.error.startswith("SessionKilled: ")
        assert session.run("x").stdout == "5\n"


def test_a_remaining_timer_does_not_run_between_turns(sandbox):
    code = "import signal, time\nn = [0]\n"
    code += "def tick(*_): n[0] += 1\n"
    code += "signal.signal(signal.SIGALRM, tick)\nsignal.setitimer(0, 0.001, 0.001)\n"
    code += "signal.setitimer = signal.signal = lambda *_: None"
    with sandbox.session() as session:
        session.run(code)
        threading.Event().wait(0.3)
        assert int(session.run("print(n[0])").stdout) < 100


def test_a_remaining_thread_does_not_run_between_turns(unsafe):
    """Also true with isolation; here a counter in shared memory shows the threads."""
    code = "import threading, time\nn = [0]\ndef go():\n    while True: n[0] += 1; time.sleep(0)\n"
    code += "threading.Thread(target=go, daemon=True).start()"
    with unsafe.session() as session:
        session.run(code)
        first = int(session.run("print(n[0])").stdout)
        threading.Event().wait(0.3)
        second = int(session.run("print(n[0])").stdout)
        session.run("time.sleep(0.3)")
        third = int(session.run("print(n[0])").stdout)
    assert third - second > 5 * (second - first)
