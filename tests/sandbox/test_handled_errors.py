"""The record of whether a block raised an error and handled it, and what that costs a block."""

import pytest
from codedance.sandbox import Outcome, open_sandbox
from codedance.sandbox.types import output_digest

HIDDEN = "try:\n    print(pixels)\nexcept NameError:\n    pass"
CONTEXT = (
    "class Quiet:\n    def __enter__(self): return self\n    def __exit__(self, *_): return True\n"
)
HANDLED = {
    "except": HIDDEN,
    "a bare except": "try:\n    print(pixels)\nexcept:\n    pass",
    "except, the message printed": "try:\n    1 / 0\nexcept Exception as error:\n    print(error)",
    "except*": "try:\n    raise ExceptionGroup('', [ValueError()])\nexcept* ValueError:\n    pass",
    "except in a function": f"def look():\n    {HIDDEN.replace(chr(10), chr(10) + '    ')}\nlook()",
    "except, then exit": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    exit()",
    "suppress": "import contextlib\nwith contextlib.suppress(NameError):\n    print(pixels)",
    "an exit stack": "import contextlib as c\nwith c.ExitStack() as s:\n"
    "    s.enter_context(c.suppress(NameError))\n    pixels",
    "an own context manager": f"{CONTEXT}with Quiet():\n    print(pixels)",
    "finally that returns": "def look():\n    try:\n        pixels\n    finally:\n"
    "        return None\nlook()",
    "finally that continues": "for n in (1, 2):\n    try:\n        pixels\n    except KeyError:\n"
    "        pass\n    finally:\n        continue",
    "exec": f"exec({HIDDEN!r})",
    "exec in exec": f"exec({f'exec({HIDDEN!r})'!r})",
    "a console": "import code, contextlib, io\nwith contextlib.redirect_stderr(io.StringIO()):\n"
    "    code.InteractiveInterpreter().runsource('print(pixels)')\nNone",
    "a coroutine": "import asyncio\nasync def look():\n    'Look.'\n    return pixels\n"
    "async def all():\n    await asyncio.gather(look(), return_exceptions=True)\n"
    "asyncio.run(all())",
    "a finalizer": "import sys\nsys.unraisablehook = lambda _: None\n"
    "class Last:\n    def __del__(self): pixels\nlast = Last()\ndel last",
}
# Level `confined` has no threads.
HANDLED_IN_THREADS = {
    "a thread": "import threading\nthreading.excepthook = lambda *_: None\n"
    "thread = threading.Thread(target=lambda: pixels)\nthread.start()\nthread.join()",
    "a bare thread": "import _thread, sys, time\nsys.unraisablehook = lambda _: None\n"
    "_thread.start_new_thread(lambda: pixels, ())\ntime.sleep(0.05)",
    "a future": "from concurrent.futures import ThreadPoolExecutor\n"
    "_ = ThreadPoolExecutor().submit(lambda: pixels)",
}
CLEAN = {
    "nothing raised in try": "try:\n    x = 1\nexcept NameError:\n    pass",
    "nothing raised in with": "with open('a', 'w') as file:\n    print('a', file=file)",
    "finally without an error": "def look():\n    try:\n        return 1\n    finally:\n"
    "        pass\nlook()",
    "errors that libraries handle": "import cv2, matplotlib.pyplot as plt\nplt.plot([1, 2])\n"
    "hasattr(input_image, 'pixels')",
    "classes made by exec": "from collections import namedtuple\n"
    "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A:\n    x: int = 1\n"
    "B = namedtuple('B', 'x y')",
    "exec without handlers": "exec('x = [n for n in (1, 2)]')",
}


@pytest.fixture(scope="module")
def local():
    with open_sandbox("local") as opened:
        yield opened


@pytest.mark.parametrize("code", HANDLED.values(), ids=HANDLED)
def test_an_error_that_a_block_handles_is_recorded(local, code):
    with local.session() as session:
        execution = session.run(code)
        after = session.run("x = 1")
    assert execution.outcome is Outcome.OK, execution.error
    assert execution.has_handled_error
    assert not after.has_handled_error


@pytest.mark.parametrize("code", HANDLED_IN_THREADS.values(), ids=HANDLED_IN_THREADS)
def test_an_error_that_a_thread_ends_with_is_recorded(full, code):
    test_an_error_that_a_block_handles_is_recorded(full, code)


@pytest.mark.parametrize("name", CLEAN)
def test_a_block_without_an_error_of_its_own_has_no_record(local, name):
    with local.session() as session:
        execution = session.run(CLEAN[name])
    assert execution.outcome is Outcome.OK, execution.error
    assert not execution.has_handled_error


def test_a_failed_block_is_failed_whatever_it_handled_before(local):
    with local.session() as session:
        execution = session.run(f"{HIDDEN}\n1 / 0")
    assert (execution.outcome, execution.has_handled_error) == (Outcome.ERROR, False)
    assert execution.error == "ZeroDivisionError: division by zero, line 5"


@pytest.mark.parametrize(
    ("code", "error", "trace"),
    [
        (
            "def look():\n    with open('a', 'w') as file:\n\n        1 / 0\nlook()",
            "ZeroDivisionError: division by zero, line 4",
            "Traceback (your own code):\n  line 5: look()\n  line 4, in look: 1 / 0\n",
        ),
        ("with open('a', 'w'):\n    pass\nreturn", "SyntaxError: 'return' outside function", ""),
        ("for n in (1,):\n    try:\n        1 / 0\n    finally:\n        pass", "line 3", ""),
    ],
)
def test_the_record_changes_neither_lines_nor_tracebacks(local, code, error, trace):
    with local.session() as session:
        execution = session.run(code)
    assert error in (execution.error or "")
    assert execution.stderr == trace


def test_a_warning_of_the_compiler_is_given_once(local):
    with local.session() as session:
        execution = session.run("with open('a', 'w'):\n    x = 3\nx is 3")
    assert execution.stderr.count("SyntaxWarning") == 1


def test_code_nested_as_deeply_as_python_allows_still_runs(local):
    depth = 15
    lines = [f"{' ' * n}with contextlib.nullcontext({n}) as x:" for n in range(depth)]
    with local.session() as session:
        execution = session.run("\n".join(["import contextlib", *lines, f"{' ' * depth}print(x)"]))
    assert (execution.outcome, execution.stdout) == (Outcome.OK, f"{depth - 1}\n")


def test_the_digest_of_an_output_does_not_include_the_record(local):
    with local.session() as session:
        hidden, silent = session.run(HIDDEN), session.run("x = 1")
    assert hidden.has_handled_error
    assert output_digest(hidden) == output_digest(silent)
