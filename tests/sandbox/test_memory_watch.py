"""Memory that a session holds without being able to write it: limited by the host."""

import os
import time

import pytest
from codedance.sandbox import Limits, Outcome
from codedance.sandbox.host.memory import watch as memory_watch
from codedance.sandbox.host.memory.watch import MemoryWatch, held_bytes

MB = 1 << 20
FILL = (
    "import ctypes, mmap, time\n"
    "libc = ctypes.CDLL(None)\n"
    "libc.mmap.restype = ctypes.c_void_p\n"
    "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]\n"
    "libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n"
    "def fill(megabytes):\n"
    "    for _ in range(megabytes // 16):\n"
    "        address = libc.mmap(None, 16 << 20, 3, 0x22, -1, 0)\n"
    "        ctypes.memset(address, 1, 16 << 20)\n"
    "        assert libc.mprotect(address, 16 << 20, mmap.PROT_READ) == 0\n"
)


def test_pages_made_read_only_count_while_the_block_runs(isolated):
    with isolated.session() as session:
        session.run(f"x = 7\n{FILL}")
        execution = session.run("fill(512)\ntime.sleep(3)")
        assert (execution.outcome, execution.error) == (
            Outcome.MEMORY,
            "MemoryError: more than 256 MB",
        )
        assert session.run("x").stdout == "7\n"


def test_pages_made_read_only_count_over_several_blocks(isolated):
    with isolated.session() as session:
        session.run(FILL)
        outcomes = [session.run("fill(128)").outcome for _ in range(3)]
    assert outcomes == [Outcome.OK, Outcome.OK, Outcome.MEMORY]


def test_read_only_pages_within_the_limit_are_allowed(isolated):
    with isolated.session() as session:
        session.run(FILL)
        assert session.run("fill(224)\ntime.sleep(0.1)\nprint('here')").stdout == "here\n"


def test_ordinary_memory_up_to_the_limit_is_allowed(isolated):
    """The kernel's own limit comes first there: it names the line."""
    code = "import time\nx = bytearray(b'1') * (236 << 20)\ntime.sleep(0.1)\nprint(len(x) >> 20)"
    with isolated.session() as session:
        assert session.run(code).stdout == "236\n"
        assert session.run("y = bytearray(40 << 20)").error == (
            "MemoryError: more than 256 MB, line 1"
        )


@pytest.mark.parametrize("kind", ["RLIMIT_STACK", "RLIMIT_AS", "RLIMIT_DATA"])
def test_the_kernels_limits_on_memory_cannot_be_raised(isolated, kind):
    code = (
        f"import resource\nkind = resource.{kind}\nsoft, hard = resource.getrlimit(kind)\n"
        "print(soft == hard, hard >> 20)\n"
        "resource.setrlimit(kind, (hard + 4096, hard + 4096))"
    )
    with isolated.session() as session:
        execution = session.run(code)
    assert execution.error.startswith("ValueError: not allowed to raise maximum limit")
    is_fixed, megabytes = execution.stdout.split()
    assert is_fixed == "True"
    most = {"RLIMIT_STACK": 8, "RLIMIT_AS": 2_000, "RLIMIT_DATA": 800}
    assert int(megabytes) <= most[kind]


def test_the_status_of_a_process_is_read():
    status = b"Name:\tx RssAnon: 9\nRssAnon:\t  30 kB\nVmPTE:\t 4 kB\nVmSwap:\t 6 kB\n"
    assert held_bytes(status) == 40 << 10
    assert held_bytes(b"Name:\tended\nState:\tZ (zombie)\n") is None


def test_a_watch_of_no_process_never_ends_a_block():
    watch = MemoryWatch(None, Limits(memory_mb=1))
    watch.begin()
    assert not watch.is_over()
    assert not watch.is_over_after(1.0)
    watch.close()
    watch.close()


def held_by(monkeypatch, held):
    """Return a watch with a limit of 1024 MB of a process that holds ``held`` of each look."""
    monkeypatch.setattr(memory_watch, "held_bytes", lambda _: held.pop(0))
    return MemoryWatch(os.getpid(), Limits(memory_mb=1024))


def test_a_watch_looks_the_sooner_the_less_is_left(monkeypatch):
    watch = held_by(monkeypatch, [50 * MB, 50 * MB, 1000 * MB, 1105 * MB, 1107 * MB])
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    watch.begin()
    waits = [watch.seconds_to_look]
    for clock in (1.0, 2.0, 3.0):
        monkeypatch.setattr(time, "monotonic", lambda clock=clock: clock)
        assert not watch.is_over()
        waits.append(watch.seconds_to_look)
    assert waits == pytest.approx([1056 / 8192, 1056 / 8192, 106 / 8192, 0.01])
    assert not watch.is_over()  # not due: it does not look
    monkeypatch.setattr(time, "monotonic", lambda: 4.0)
    assert watch.is_over()


def test_short_blocks_are_checked_together(monkeypatch):
    watch = held_by(monkeypatch, [50 * MB, 2000 * MB])
    assert [watch.is_over_after(0.002) for _ in range(3)] == [False, False, True]
