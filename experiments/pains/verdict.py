"""What a try of a pain found; the standard library only, for any environment.

A try is a module of `tries` with a function for each contestant, named ``ours``, ``trl``, ``verl``
and ``verifiers``, that returns a `Verdict`. It runs as a program in that contestant's environment::

    python -m experiments.pains.tries.hanging_code trl
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from dataclasses import asdict, dataclass
from importlib import import_module

PASSES, FAILS, UNTRIED = "passes", "fails", "cannot be tried here"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of one contestant.

    Attributes:
        result: ``passes``, ``fails`` or ``cannot be tried here``.
        evidence: What was seen, in figures, and where in the contestant's source; or the reason.
    """

    result: str
    evidence: str


def passes(evidence: str) -> Verdict:
    """Return that the pain was not felt."""
    return Verdict(PASSES, evidence)


def fails(evidence: str) -> Verdict:
    """Return that the pain was felt."""
    return Verdict(FAILS, evidence)


def untried(reason: str) -> Verdict:
    """Return that there is nothing to try, or no way to try it without a GPU or a service."""
    return Verdict(UNTRIED, reason)


def judge(is_right: bool, evidence: str) -> Verdict:
    """Return `passes` or `fails`."""
    return passes(evidence) if is_right else fails(evidence)


def main(module: str) -> None:
    """Try the contestant that the command line names; print its verdict as a line of JSON."""
    try_ = getattr(import_module(module), sys.argv[1])
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            found = asdict(try_())
    except Exception:  # noqa: BLE001 - a try that broke is no verdict
        found = {"error": traceback.format_exc()[-3000:]}
    sys.__stdout__.write(f"\n{json.dumps(found)}\n")
    sys.__stdout__.flush()
    os._exit(0)  # whatever hangs in a thread ends with it


if __name__ == "__main__":
    target = sys.argv.pop(1)
    main(f"experiments.pains.tries.{target}")
