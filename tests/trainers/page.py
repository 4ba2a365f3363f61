"""The lines of docs/trainers.md that users copy, run as they stand; and what all checks share."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from codedance.sandbox import SandboxError
from codedance.sandbox.opening import open_sandbox
from docs.blocks import read_blocks

ROOT = Path(__file__).resolve().parents[2]
RESULT = r"reward ([+-][\d.]+) before, ([+-][\d.]+) after, ([+-][\d.]+) \(95 %: ([+-][\d.]+) to"
LEAST = 0.2


def blocks_of(section: str) -> list[str]:
    """Return the Python blocks of a section of the page."""
    page = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return [block.text for block in read_blocks(text) if block.language == "python"]


def execute(text: str, **given: object) -> dict[str, object]:
    """Run a block with the names that the reader has; return the names after it."""
    names = dict(given)
    exec(compile(text, "docs/trainers.md", "exec"), names)
    return names


def trains(example: str, seed: int) -> None:
    """Run an example, print its lines, and check that its held-out reward has risen.

    Raises:
        AssertionError: It failed, or the reward did not rise by `LEAST` beyond doubt.
    """
    command = [sys.executable, str(ROOT / "examples" / example), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    say(done.stdout)
    before, after, gain, low = map(float, re.search(RESULT, done.stdout).groups())
    assert abs(after - before - gain) < 0.002
    assert gain >= LEAST
    assert low > 0.0


def say(*what: object) -> None:
    """Print for the log: pytest shows what a check that passed has printed."""
    sys.stdout.write(" ".join(map(str, what)) + "\n")


class FailingSandbox:
    """A real sandbox whose sessions cannot be opened while `fails`."""

    def __init__(self) -> None:
        self.real = open_sandbox("local")
        self.tier = self.real.tier
        self.fails = False

    def session(self, *arguments, **options):
        if self.fails:
            raise SandboxError("injected: no session to be had")
        return self.real.session(*arguments, **options)

    def restore(self, *arguments, **options):
        if self.fails:
            raise SandboxError("injected: no session to be had")
        return self.real.restore(*arguments, **options)

    def close(self) -> None:
        self.real.close()
