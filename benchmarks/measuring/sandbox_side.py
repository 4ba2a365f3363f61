"""One version of the sandbox in a process of its own: start, trivial turn and crop turn, as JSON.

``python -m benchmarks.measuring.sandbox_side ROUNDS SEED FILE ROOT`` measures the version whose
rooms lie in ``ROOT``, at each isolation level that stands here, beside bare ``exec``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import codedance.sandbox
from codedance.sandbox import Limits, SandboxError
from codedance.sandbox.host.interpreter import ask_interpreter
from codedance.sandbox.host.zygote import ZygotePlan
from codedance.sandbox.local import LocalSandbox
from codedance.sandbox.types import DEFAULT_LIBRARIES

from .contestants import BareExec, Stateful, our_sandbox
from .programs import input_picture
from .rounds import Row, run_rounds

BARE = "bare exec"
LEVELS = ("full", "confined")
ROWS = (Row("start", BARE, repeats=3), Row("print", BARE, repeats=50), Row("crop", BARE, repeats=3))
_LIMITS = Limits(wall_seconds=60.0, cpu_seconds=60.0)


def measure(rounds: int, seed: int) -> dict[str, dict[str, float]]:
    """Return the median seconds of each row by contestant; a level that is refused is left out."""
    picture = input_picture(seed)
    contestants = [Stateful(BARE, lambda: BareExec(picture))]
    with contextlib.ExitStack() as stack:
        for level in LEVELS:
            plan = ZygotePlan(ask_interpreter(sys.executable), DEFAULT_LIBRARIES, _LIMITS, level)
            with contextlib.suppress(SandboxError):
                contestants.append(our_sandbox(level, LocalSandbox(plan, floor="none"), picture))
                stack.callback(contestants[-1].close)
        result = run_rounds(contestants, ROWS, rounds=rounds, seed=seed)
    found: dict[str, dict[str, float]] = {}
    for name in result.names:
        found[name] = {row.name: result.median(name, row.name) or 0.0 for row in ROWS}
    return found


def main(rounds: str, seed: str, file: str, root: str) -> None:
    """Measure, and write the medians.

    Raises:
        RuntimeError: Another version than that of ``root`` was imported.
    """
    imported = Path(codedance.sandbox.__file__).resolve()
    if not imported.is_relative_to(Path(root).resolve()):
        raise RuntimeError(f"expected the sandbox of {root}, got {imported}")
    Path(file).write_text(json.dumps(measure(int(rounds), int(seed))), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
