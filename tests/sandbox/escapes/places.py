"""Places of the attempts: backends, isolation levels and users."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from codedance.sandbox.docker.backend import starter
from codedance.sandbox.docker.image.build import build_image
from codedance.sandbox.host.interpreter import ask_interpreter
from codedance.sandbox.host.zygote import ZygotePlan, start_beside
from codedance.sandbox.local import LocalSandbox
from codedance.sandbox.types import DEFAULT_LIBRARIES
from codedance.sandbox.worker import kernel

from .attempt import Attempt
from .bait import Bait
from .catalogue import ATTEMPTS
from .judging import LIMITS, Arena, Verdict
from .patched import lowered_landlock

_NOBODY = 65534


@contextmanager
def open_arena(place: str) -> Iterator[Arena]:
    """Open an arena: ``full``, ``confined``, ``docker-full`` or ``docker-confined``.

    The local ones take a lower version of landlock: ``confined@2``.
    """
    place, _, abi = place.partition("@")
    backend, _, isolation = place.rpartition("-")
    bait = Bait()
    interpreter = None if backend else ask_interpreter(sys.executable)
    plan = ZygotePlan(interpreter, DEFAULT_LIBRARIES, LIMITS, isolation)
    start = starter(_image()) if backend else start_beside
    try:
        with (
            lowered_landlock(int(abi) if abi else None),
            LocalSandbox(plan, floor="none", start=start) as sandbox,
        ):
            arena = Arena(sandbox, bait, lambda: sandbox.process_id)
            yield arena
            arena.close()
    finally:
        bait.close()


@functools.cache
def _image() -> str:
    name = "codedance-sandbox-test"
    build_image(name)
    return name


def judge_all(place: str, attempts: Sequence[Attempt] = ATTEMPTS) -> list[Verdict]:
    """Make attempts one after another in a new arena."""
    with open_arena(place) as arena:
        return [arena.judge(attempt) for attempt in attempts]


def judge_as_nobody(place: str, numbers: Sequence[str] = ()) -> list[Verdict]:
    """Make attempts from a process without root: one user has trainer, zygote and sessions."""
    command = [sys.executable, "-m", "sandbox.escapes", "judge", place, *numbers]
    answer = subprocess.run(
        [sys.executable, "-m", "sandbox.escapes", "as-nobody", *command],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    return [Verdict(**fields) for fields in json.loads(answer.stdout.splitlines()[-1])]


def go_on_as_nobody(command: Sequence[str], user: int = _NOBODY) -> None:
    """Become an unprivileged user and execute ``command``; never returns."""
    closed = _closed_ancestor(Path(sys.base_prefix))
    if closed is not None:
        _show_through(closed, Path(sys.base_prefix))
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    os.execv(command[0], list(command))


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print verdicts as one line of JSON, for the calling process."""
    sys.stdout.write("\n" + json.dumps([asdict(verdict) for verdict in verdicts]) + "\n")


def _closed_ancestor(path: Path) -> Path | None:
    """Return the folder above ``path`` that only its owner may enter."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def _show_through(closed: Path, inside: Path) -> None:
    """Mount an empty folder with only ``inside`` over ``closed``, for this process."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    stage = tempfile.mkdtemp()
    kernel.mount(str(inside), stage, "", kernel.MS_BIND | kernel.MS_REC)
    kernel.mount("home", str(closed), "tmpfs", kernel.MS_NOSUID, "mode=755,size=1m")
    inside.mkdir(parents=True)
    kernel.mount(stage, str(inside), "", kernel.MS_BIND | kernel.MS_REC)
