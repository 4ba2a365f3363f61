"""Cost of each library: its import, once, and the fork of every session after it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from ..types import SandboxError
from .interpreter import ask_interpreter
from .worker_process import ENVIRONMENT

_SCRIPT = """
import gc, importlib, json, os, sys, time
sys.path[:] = json.loads(sys.argv[1])
def fork_ms():
    gc.collect()
    gc.freeze()
    best = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        best = min(best, time.perf_counter() - started)
    return best * 1000
before = fork_ms()
for name in sys.argv[2:]:
    started = time.perf_counter()
    try:
        importlib.import_module(name)
    except Exception as error:
        print(json.dumps([name, None, None, f"{type(error).__name__}: {error}"]), flush=True)
        continue
    took = (time.perf_counter() - started) * 1000
    after = fork_ms()
    print(json.dumps([name, took, after - before, ""]), flush=True)
    before = after
"""


@dataclass(frozen=True, slots=True)
class LibraryCost:
    """Cost of one library, in addition to those measured before it.

    Attributes:
        name: Name of the module.
        import_ms: Duration of its import, in milliseconds; None when it cannot be imported.
        fork_ms: Additional duration of a fork once it is loaded, in milliseconds; None as above.
        error: Reason why it cannot be imported; empty when it can.
    """

    name: str
    import_ms: float | None
    fork_ms: float | None
    error: str = ""


def measure_libraries(
    libraries: Sequence[str], *, python: str, timeout_seconds: float = 120.0
) -> tuple[LibraryCost, ...]:
    """Import the libraries one after another in a process as minimal as the zygote's.

    Raises:
        SandboxError: The interpreter does not run.
    """
    known = ask_interpreter(python)
    command = [python, "-s", "-S", "-B", "-c", _SCRIPT, json.dumps(known.paths), *libraries]
    try:
        answer = subprocess.run(
            command,
            env=ENVIRONMENT,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxError(f"the libraries' costs could not be measured: {error}") from error
    return tuple(LibraryCost(*json.loads(line)) for line in answer.stdout.splitlines())
