"""Time-outs: fair to the block, and effective against code that tries to exceed them."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from codedance.sandbox import Limits, Outcome

from .conftest import open_isolated

HASTY = Limits(wall_seconds=0.4, cpu_seconds=0.4, memory_mb=256)


@pytest.fixture(scope="module")
def hasty():
    with open_isolated("full", HASTY, libraries=()) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def hasty_confined():
    with open_isolated("confined", HASTY, libraries=()) as sandbox:
        yield sandbox


def test_a_loop_gets_the_soft_time_out_with_its_line_and_output(hasty):
    with hasty.session() as session:
        execution = session.run("print('so far')\nx = 0\nwhile True: x += 1")
    assert execution.outcome is Outcome.TIMEOUT
    assert execution.error in (
        "TimeoutError: the block ran longer than 0.4 s, line 3",
        "TimeoutError: the block used more than 0.4 s of processor time, line 3",
    )
    assert execution.stdout == "so far\n"
    assert execution.wall_seconds > 0.3
    assert execution.cpu_seconds < 0.8


def test_sleeping_counts_as_wall_time(hasty):
    with hasty.session() as session:
        execution = session.run("import time\ntime.sleep(60)")
    assert execution.error == "TimeoutError: the block ran longer than 0.4 s, line 2"
    assert execution.cpu_seconds < 0.3


BOTH_AT_ONCE = """import signal as s, threading, time
both = {s.SIGALRM, s.SIGPROF}
s.pthread_sigmask(s.SIG_BLOCK, both)
def interrupt(end=time.process_time() + 0.45):
    while time.process_time() < end: pass
    s.raise_signal(s.SIGALRM)
    s.pthread_sigmask(s.SIG_UNBLOCK, both)
threading.Thread(target=interrupt).start()
while True: pass"""


def test_two_simultaneous_time_outs_are_one_and_keep_the_line():
    """As on a busy machine, where both limits may be reached at the same time."""
    limits = Limits(wall_seconds=10.0, cpu_seconds=0.4, memory_mb=256)
    with open_isolated("full", limits, libraries=()) as sandbox, sandbox.session() as session:
        execution = session.run(BOTH_AT_ONCE)
    assert execution.error == "TimeoutError: the block ran longer than 10 s, line 9"


OUTLIVERS = {
    "59 except Exception": "while True:\n    try: x = 1\n    except Exception: pass",
    "59 except BaseException": "while True:\n    try:\n        while True: x = 1\n"
    "    except BaseException: pass",
    "59 finally": "def f():\n    try:\n        while True: pass\n    finally: f()\nf()",
    "60 masked signals": "import signal as s\ns.pthread_sigmask(s.SIG_BLOCK, range(1, 65))\n"
    "while True: pass",
    "60 ignored signals": "import signal as s\ns.signal(s.SIGALRM, s.SIG_IGN)\n"
    "s.signal(s.SIGPROF, s.SIG_IGN)\nwhile True: pass",
    "60 cancelled timers": "import signal as s\ns.setitimer(s.ITIMER_REAL, 0)\n"
    "s.setitimer(s.ITIMER_PROF, 0)\nwhile True: pass",
    "61 a loop in C": "import re\nre.match('(a+)+b', 'a' * 64)",
    "61 a long sum": "sum(range(10**12))",
    "62 a deadlock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "own 16 a repr": "class R:\n    def __repr__(self):\n        while True: pass\nR()",
    "own 17 an error whose text never ends": "class E(Exception):\n    def __str__(self):\n"
    "        while True: pass\nraise E",
    "own 18 a destructor": "class D:\n    def __del__(self):\n        while True: pass\nD(); None",
}


@pytest.mark.parametrize("code", OUTLIVERS.values(), ids=OUTLIVERS)
def test_no_code_exceeds_its_time(hasty, code):
    _expect_timeout(hasty, code)


@pytest.mark.parametrize("name", ["59 except BaseException", "60 masked signals", "61 a long sum"])
def test_no_code_exceeds_its_time_without_namespaces(hasty_confined, name):
    _expect_timeout(hasty_confined, OUTLIVERS[name])


def _expect_timeout(sandbox, code):
    with sandbox.session() as session:
        session.run("kept = 'kept'")
        execution = session.run(code)
        assert execution.outcome is Outcome.TIMEOUT, execution
        assert execution.cpu_seconds < 2.0  # its limit and the grace before the kill
        assert execution.wall_seconds < 20.0  # with the full extension for a starved block
        assert session.run("kept").stdout == "'kept'\n"


def test_a_block_that_masks_the_time_out_still_times_out(hasty):
    """It ends within the grace period before the kill, and claims success."""
    code = "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
    code += "time.sleep(0.9)\nprint('well')"
    with hasty.session() as session:
        execution = session.run(code)
    assert (execution.outcome, execution.stdout) == (Outcome.TIMEOUT, "well\n")
    assert execution.error == "TimeoutError: the block ran longer than 0.4 s"


def test_threads_share_the_blocks_processor_time():
    """Four spinning threads use up their processor time before the wall-clock limit."""
    limits = Limits(wall_seconds=30.0, cpu_seconds=0.4, memory_mb=256)
    code = "import threading\ndef spin():\n    while True: pass\n"
    code += "for _ in range(4): threading.Thread(target=spin, daemon=True).start()\nspin()"
    with open_isolated("full", limits, libraries=()) as sandbox, sandbox.session() as session:
        execution = session.run(code)
    assert execution.outcome is Outcome.TIMEOUT
    assert "processor time" in execution.error
    assert execution.wall_seconds < 15.0


def test_a_thread_left_running_cannot_use_the_processor_after_its_block():
    limits = Limits(wall_seconds=5.0, memory_mb=256)
    code = "import threading, time\ndef spin():\n    while True: pass\n"
    code += "threading.Thread(target=spin, daemon=True).start()\nprint(time.process_time())"
    with open_isolated("full", limits, libraries=()) as sandbox, sandbox.session() as session:
        assert session.run(code).is_ok
        used = float(session.run("print(time.process_time())").stdout)
        time.sleep(0.5)
        assert float(session.run("print(time.process_time())").stdout) - used < 0.4


SLOW = (
    "import time; time.sleep(600)",
    "while True: pass",
    "import time; time.sleep(0.3)\nwhile True: pass",  # takes a place again, or waits for one
)


def test_slow_sessions_do_not_delay_their_neighbours():
    """None of them ends by itself: a neighbour gets its slice all the same."""
    limits = Limits(wall_seconds=600.0, cpu_seconds=600.0, memory_mb=64)
    codes = SLOW * len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        sandbox = stack.enter_context(open_isolated("full", limits, libraries=()))
        slow = [stack.enter_context(sandbox.session()) for _ in codes]
        threads = stack.enter_context(ThreadPoolExecutor(len(codes)))
        runs = [threads.submit(one.run, code) for one, code in zip(slow, codes, strict=True)]
        time.sleep(1.0)  # all have started, and those that sleep first have begun to compute
        assert [_run_alone(sandbox, "print(1)").stdout for _ in range(3)] == ["1\n"] * 3
        assert not any(run.done() for run in runs)
        for one in slow:
            one.kill()
        assert {run.result().outcome for run in runs} == {Outcome.KILLED}


def test_a_block_that_was_stopped_for_others_goes_on_where_it_was():
    """Each computes the same sums, in slices; its clock counts its own time only."""
    limits = Limits(wall_seconds=30.0, cpu_seconds=30.0, memory_mb=256)
    code = "import time, zlib\nend = time.process_time() + 0.2\ntotal = count = 0\n"
    code += "while time.process_time() < end or count < 5:\n"
    code += "    total, count = zlib.crc32(bytes(1 << 20), total), count + 1\n"
    code += "    if count == 5: print(total)"
    with open_isolated("full", limits, libraries=()) as sandbox, ThreadPoolExecutor(4) as threads:
        ends = list(threads.map(lambda _: _run_alone(sandbox, code), range(4)))
    assert [end.outcome for end in ends] == [Outcome.OK] * 4
    assert len({end.stdout for end in ends}) == 1


def test_time_in_the_queue_is_not_charged_to_the_block(hasty):
    """Twelve queued turns need a second of processor time; each has 0.4 s from its start."""
    code = "import time\nend = time.process_time() + 0.08\nwhile time.process_time() < end: pass"
    with ThreadPoolExecutor(12) as threads:
        ends = list(threads.map(lambda _: _run_alone(hasty, code), range(12)))
    assert [end.outcome for end in ends] == [Outcome.OK] * 12


def test_competing_threads_do_not_extend_the_time_limit():
    """A deadlock among threads that compete for the cores is still the block's own time-out."""
    limits = Limits(wall_seconds=0.5, cpu_seconds=60.0, memory_mb=256)
    code = "import threading, zlib\ndata = bytes(1 << 20)\ndef spin():\n"
    code += "    while True: zlib.crc32(data)\n"
    code += "for _ in range(12): threading.Thread(target=spin, daemon=True).start()\n"
    code += "lock = threading.Lock()\nlock.acquire()\nlock.acquire()"
    with open_isolated("full", limits, libraries=()) as sandbox:
        execution = _run_alone(sandbox, code)
    assert execution.outcome is Outcome.TIMEOUT


@pytest.mark.parametrize("swallow", ["except Exception", "except BaseException", "finally"])
def test_a_thread_remaining_after_a_time_out_is_ended(hasty, swallow):
    """The thread would change the state of the next block."""
    code = "import threading, time\ndef late():\n    time.sleep(0.8)\n    kept.append(2)\n"
    code += "threading.Thread(target=late, daemon=True).start()\n"
    code += f"try:\n    time.sleep(60)\n{swallow}: time.sleep(60)"
    with hasty.session() as session:
        session.run("kept = [1]")
        assert session.run(code).outcome is Outcome.TIMEOUT
        assert session.run("import time\ntime.sleep(0.2)\nkept").stdout == "[1]\n"


def _run_alone(sandbox, code):
    with sandbox.session() as session:
        return session.run(code)
