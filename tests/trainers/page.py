"""The lines of docs/trainers.md that users copy, run as they stand; and what all checks share."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from codedance.sandbox import SandboxError
from codedance.sandbox.opening import open_sandbox
from docs.blocks import Block, read_blocks

ROOT = Path(__file__).resolve().parents[2]
RESULT = r"reward ([+-][\d.]+) before, ([+-][\d.]+) after, ([+-][\d.]+) \(95 %: ([+-][\d.]+) to"
LEAST = 0.2


def blocks_of(section: str) -> list[str]:
    """Return the Python blocks of a section of the page."""
    return [block.text for block in _read(section) if block.language == "python"]


def commands_of(section: str) -> list[str]:
    """Return the commands of a section of the page."""
    blocks = [block for block in _read(section) if block.language == "console"]
    return [command for block in blocks for command in block.commands]


def _read(section: str) -> list[Block]:
    page = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return read_blocks(text)


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


@contextlib.contextmanager
def served(*command: str, port: int) -> Iterator[str]:
    """Run a server in the environment that has our model; yield its address once it answers."""
    own = os.environ | {"PYTHONPATH": os.environ["OUR_PATH"]}
    program = [os.environ["OUR_PYTHON"], *command]
    server = subprocess.Popen(program, env=own, stdout=subprocess.DEVNULL)
    try:
        while True:
            assert server.poll() is None, f"{program} has ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait()


def serving_nano(port: int) -> tuple[str, ...]:
    """Return the words for `served` that serve the nano model as `codedance serve model` does."""
    program = "from codedance.pipelines.cli import main; main()"
    return ("-c", program, "serve", "model", "nano", "--port", str(port))


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


class FailingSandbox:
    """A real sandbox that opens no session while `fails`, or none for the seeds that it selects."""

    def __init__(self) -> None:
        self.real = open_sandbox("local")
        self.tier = self.real.tier
        self.fails: bool | Callable[[int], bool] = False

    def session(self, images=(), *, seed: int = 0):
        self._check(seed)
        return self.real.session(images, seed=seed)

    def restore(self, state, images=()):
        self._check(0)
        return self.real.restore(state, images)

    def close(self) -> None:
        self.real.close()

    def _check(self, seed: int) -> None:
        if self.fails(seed) if callable(self.fails) else self.fails:
            raise SandboxError("injected: no session to be had")
