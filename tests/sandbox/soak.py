"""Thousands of turns over hundreds of sessions while sessions and the zygote are killed.

``python -m sandbox.soak`` (in ``tests/``) runs it in full size and prints the findings. Every turn
prints a nonce and its knowledge of the turns before, to detect swapped, stale or lost results. It
must end in a correct result or in an outcome that reports the loss.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from codedance.sandbox import Execution, Limits, Outcome
from codedance.sandbox.host.interpreter import ask_interpreter
from codedance.sandbox.host.zygote import ZygotePlan
from codedance.sandbox.local import LocalSandbox
from codedance.sandbox.types import Session
from PIL import Image

from .soak_memory import MemoryCurve, anonymous_mb

LIMITS = Limits(wall_seconds=20.0, memory_mb=128, disk_mb=4, output_characters=500, images=2)
_PROGRESS_SECONDS = 10.0
_SETTLE_SECONDS = 10.0
_WARM_MB = 60  # arenas and buffers of all threads, used once
_SHADES = 8
_IS_SHARED = "PYTEST_XDIST_WORKER" in os.environ  # other tests create folders too
_PREPARE = "import os\nhistory = []"
_TURN = """history.append({number})
with open('note', 'a') as file: _ = file.write('{number} ')
print('{nonce}', sum(history), len(open('note').read().split()), input_image.getpixel((0, 0))[0])
"""


_FAILURES = (
    "1 / 0",
    "os._exit(1)",
    "open('nowhere')",
    "bytearray(1 << 30)",
    "open('large', 'wb').write(bytes(5 << 20))",
    """import ctypes, mmap, time
libc = ctypes.CDLL(None)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
kept = []
for _ in range(16):
    pages = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, 16 << 20, 4096): pages[page] = 1
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    assert libc.mprotect(start, 16 << 20, mmap.PROT_READ) == 0
    kept.append(pages)
time.sleep(5)""",
    """import time
time.sleep(0.3)
end = time.process_time() + 0.3
while time.process_time() < end: pass
raise KeyError""",
)
"""Ends of blocks: errors, deaths, and every limit that a session meets in ordinary use."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Size and load of a soak test.

    Attributes:
        turns: Number of turns of all sessions together.
        sessions: Number of sessions in total.
        threads: Number of concurrent sessions.
        session_kills: Share of the sessions that are killed between or in their turns.
        turns_per_zygote: Number of turns between two kills of the zygote.
        seed: Random seed.
        isolation: Isolation level of the sandbox.
    """

    turns: int = 100_000
    sessions: int = 2_000
    threads: int = 8
    session_kills: float = 0.2
    turns_per_zygote: int = 2_500
    seed: int = 0
    isolation: str = "full"


@dataclass(slots=True)
class Findings:
    """Findings of a soak test; all lists are empty if there is no problem."""

    seconds: float = 0.0
    turns: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    unreported: list[str] = field(default_factory=list[str])
    leaks: list[str] = field(default_factory=list[str])
    zygote_deaths: int = 0
    kills: int = 0
    memory_growth_mb: float = 0.0
    late_growth_mb: dict[str, float | None] = field(default_factory=dict[str, float | None])


class Soak:
    """One run: threads that play sessions, and one that kills."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._findings = Findings()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._curve = MemoryCurve(plan.turns)
        self._running: set[object] = set()
        interpreter = ask_interpreter(sys.executable)
        zygote = ZygotePlan(interpreter, ("PIL",), LIMITS, plan.isolation)
        self._sandbox = LocalSandbox(zygote, floor="none")

    def run(self) -> Findings:
        """Play all sessions and look for leaks afterwards."""
        for shade in range(_SHADES):  # objects created once (caches, sealed images) are not leaks
            self._play(-_SHADES + shade)
        before = self._held()
        self._findings = Findings()
        started = time.monotonic()
        others = [threading.Thread(target=work) for work in (self._kill_zygotes, self._report)]
        for thread in others:
            thread.start()
        try:
            with ThreadPoolExecutor(self._plan.threads) as threads:
                list(threads.map(self._play, range(self._plan.sessions)))
        finally:
            self._is_over.set()
            for thread in others:
                thread.join()
        self._findings.seconds = time.monotonic() - started
        self._look_for_leaks(before)
        return self._findings

    def _play(self, number: int) -> None:
        draw = random.Random(self._plan.seed * 1_000_003 + number)
        turns = self._plan.turns // self._plan.sessions
        kill_at = -1
        if draw.random() < self._plan.session_kills:
            kill_at = draw.randrange(turns)
        shade = number % _SHADES
        picture = Image.new("RGB", (8, 8), (shade, 0, 0))
        try:
            with self._sandbox.session([picture], seed=number) as session:
                self._take_turns(session, draw, turns, kill_at)
        except Exception as error:  # noqa: BLE001 - any error is a finding
            self._note("unreported", f"session {number}: {error!r}")

    def _run(self, session: Session, code: str) -> Execution:
        block = object()
        self._running.add(block)
        try:
            return session.run(code)
        finally:
            self._running.discard(block)

    def _take_turns(self, session: Session, draw: random.Random, turns: int, kill_at: int) -> None:
        self._run(session, _PREPARE)
        shade = self._run(session, "print(input_image.getpixel((0, 0))[0])").stdout.strip()
        total = kept = 0
        for number in range(turns):
            if number == kill_at:
                self._kill(session, draw)
            if draw.random() < 0.02:
                self._fail(session, draw)
            nonce = f"{draw.getrandbits(64):016x}"
            execution = self._run(session, _TURN.format(number=number, nonce=nonce))
            self._count(execution.outcome)
            if execution.outcome is Outcome.KILLED:
                if (execution.error or "").startswith("SessionLost"):  # reported: all state is gone
                    self._run(session, _PREPARE)
                    total = kept = 0
                continue
            total, kept = total + number, kept + 1
            expected = f"{nonce} {total} {kept} {shade}\n"
            if (execution.outcome, execution.stdout) != (Outcome.OK, expected):
                self._note("wrong", f"expected {expected!r}, got {execution}")
                return

    def _kill(self, session: Session, draw: random.Random) -> None:
        """Kill a session between two turns or within one."""
        with self._lock:
            self._findings.kills += 1
        if draw.random() < 0.5:
            session.kill()  # type: ignore[attr-defined]
            return
        timer = threading.Timer(0.01, session.kill)  # type: ignore[attr-defined]
        timer.start()
        execution = self._run(session, "import time\ntime.sleep(0.2)\nraise KeyError('late')")
        timer.join()
        if execution.outcome not in (Outcome.KILLED, Outcome.ERROR):
            self._note("wrong", f"a killed session gave {execution}")

    def _fail(self, session: Session, draw: random.Random) -> None:
        """Change what a rollback must undo, then fail."""
        failure = draw.choice(_FAILURES)
        code = f"history.append(10**9)\nopen('note', 'a').write('x x x')\n{failure}"
        execution = self._run(session, code)
        if execution.is_ok:
            self._note("wrong", f"a failure passed for OK: {execution}")

    def _kill_zygotes(self) -> None:
        draw = random.Random(self._plan.seed)
        done = 0
        while not self._is_over.wait(0.02):
            if done < self._findings.turns // self._plan.turns_per_zygote:
                self._is_over.wait(draw.random() / 10)
                os.kill(self._sandbox.process_id, signal.SIGKILL)
                done += 1
                self._findings.zygote_deaths = done
                self._await_ends(set(self._running))

    def _await_ends(self, blocks: set[object]) -> None:
        """Wait for blocks to end: one whose zygote dies three times reports a failure of ours."""
        while blocks & self._running and not self._is_over.wait(0.02):
            pass

    def _report(self) -> None:
        started = time.monotonic()
        while not self._is_over.wait(_PROGRESS_SECONDS):
            found, passed = self._findings, time.monotonic() - started
            sys.stderr.write(
                f"{found.turns:>7} of {self._plan.turns} turns, {passed:.0f} s, "
                f"{found.kills} sessions and {found.zygote_deaths} zygotes killed, "
                f"{len(found.wrong)} wrong, {len(found.unreported)} unreported\n"
            )

    def _count(self, outcome: Outcome) -> None:
        with self._lock:
            self._findings.turns += 1
            self._findings.outcomes[outcome.value] += 1
            turn = self._findings.turns
            if self._curve.is_due(turn):
                self._sample(turn)

    def _sample(self, turn: int) -> None:
        self._curve.add("the trainer", turn, anonymous_mb(os.getpid()))
        with contextlib.suppress(OSError, StopIteration):  # a killed zygote has none
            self._curve.add("the zygote", turn, anonymous_mb(self._zygote()))

    def _zygote(self) -> int:
        """Return the process that forks sessions: the worker, or its child in a pid namespace."""
        first, *others = descendants(self._sandbox.process_id)
        return others[0] if others and self._plan.isolation == "full" else first

    def _note(self, kind: str, what: str) -> None:
        with self._lock:
            found: list[str] = getattr(self._findings, kind)
            found.append(what)

    def _held(self) -> dict[str, int]:
        gc.collect()
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "processes": len(descendants(os.getpid())),
            "mounts of the zygote": self._mounts(),
            "temporary folders": 0 if _IS_SHARED else len(list(Path("/tmp").glob("codedance-*"))),
            "memory": _resident_mb(os.getpid()),
        }

    def _mounts(self) -> int:
        """Count the zygote's mounts: a session's tmpfs must end with the session."""
        path = Path(f"/proc/{self._zygote()}/mounts")
        return path.read_text().count("\n")

    def _look_for_leaks(self, before: dict[str, int]) -> None:
        self._play(-1)  # a dead zygote is replaced at the next request
        self._findings.turns -= self._plan.turns // self._plan.sessions
        after = self._held()
        deadline = time.monotonic() + _SETTLE_SECONDS
        while any(after[name] > before[name] for name in before if name != "memory"):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)  # killed processes are still being removed
            after = self._held()
        self._findings.memory_growth_mb = after.pop("memory") - before.pop("memory")
        for name, count in after.items():
            if count > before[name]:
                self._findings.leaks.append(f"{name}: {before[name]}, then {count}")
        if self._findings.memory_growth_mb > _WARM_MB:
            self._findings.leaks.append(f"memory: {self._findings.memory_growth_mb} MB more")
        watched = ("the trainer", "the zygote")
        self._findings.late_growth_mb = {name: self._curve.growth(name) for name in watched}
        self._findings.leaks.extend(self._curve.findings(*watched))
        processes = descendants(self._sandbox.process_id)
        self._sandbox.close()
        if left := [pid for pid in processes if Path(f"/proc/{pid}/cmdline").exists()]:
            self._findings.leaks.append(f"processes after closing: {left}")


def descendants(process_id: int) -> list[int]:
    """Return all descendants of a process, including itself."""
    found = [process_id]
    for children in Path(f"/proc/{process_id}/task").glob("*/children"):
        try:
            words = children.read_text().split()
        except OSError:
            continue
        for child in words:
            found += descendants(int(child))
    return found


def _resident_mb(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * 4 >> 10


def main() -> None:
    """Run a soak test from the command line; exit with 1 if it found anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--isolation", default="full")
    words = parser.parse_args()
    plan = Plan(
        turns=words.turns,
        sessions=words.sessions,
        turns_per_zygote=max(100, words.turns // 40),
        seed=words.seed,
        isolation=words.isolation,
    )
    findings = Soak(plan).run()
    sys.stdout.write(f"{findings}\n")
    sys.exit(bool(findings.wrong or findings.unreported or findings.leaks))


if __name__ == "__main__":
    main()
