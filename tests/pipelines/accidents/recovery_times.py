"""Seconds from a kill to the next step: ``python -m pipelines.accidents.recovery_times [ROUNDS]``.

A cold start of the embedded model is killed with ``kill -9`` in the middle, ROUNDS times (3) each.

* the command: ``codedance sft`` is killed and rerun;
* a worker's training: its process is killed under ``flows serve``, and its deployment is rerun;
* the worker: the training has to continue without it, so this measures the pause;
* ``flows serve``: the same, and the time until the same command serves again.

All run through Prefect, as users start it. Measure on an otherwise idle machine.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from ..kills import Folder, flow_run_of, killed_at_end, prefect, served, wait_until, worker_of

STEPS = 100_000
WARM = 3
"""Number of completed steps of a training when it is killed."""
ROUNDS = 3


def seconds_to_next_step(folder, done):
    """Wait for the next new step; return the seconds."""
    begun = time.monotonic()
    wait_until(lambda: max(folder.steps_done(), default=0) > done)
    return time.monotonic() - begun


def warm(folder, process, log):
    """Let a training complete some more steps; return the last one."""
    before = max(folder.steps_done(), default=0)
    wait_until(
        lambda: max(folder.steps_done(), default=0) >= before + WARM or process.poll() is not None,
        lambda: folder.said(log),
    )
    assert process.poll() is None, folder.said(log)
    return max(folder.steps_done())


def command(folder, rounds):
    """Kill the command and rerun it; yield the seconds of each round."""
    process = folder.start("sft", log="command.log")
    for _ in range(rounds):
        with killed_at_end(process):
            warm(folder, process, "command.log")
            process.kill()
            process.wait()
            done = max(folder.steps_done())
        process = folder.start("sft", log="command.log")
        yield seconds_to_next_step(folder, done)
    process.kill()
    process.wait()


def run_of_a_worker(folder, rounds):
    """Kill a flow run's process and rerun its deployment."""
    with served(folder) as server:
        prefect(folder, "deployment", "run", "sft/tiny")
        for _ in range(rounds):
            warm(folder, server, "serve.log")
            process = flow_run_of(folder)
            process.kill()
            process.wait()
            done = max(folder.steps_done())
            begun = time.monotonic()
            prefect(folder, "deployment", "run", "sft/tiny")
            wait_until(lambda done=done: max(folder.steps_done()) > done)
            yield time.monotonic() - begun


def worker(folder, rounds):
    """Kill the worker; its training continues by itself."""
    with served(folder) as server:
        prefect(folder, "deployment", "run", "sft/tiny")
        for _ in range(rounds):
            done = warm(folder, server, "serve.log")
            before = worker_of(server)
            before.kill()
            yield seconds_to_next_step(folder, done)
            wait_until(lambda before=before: worker_of(server) not in (None, before))


def serving(folder, rounds):
    """Kill ``flows serve``; its training continues. Yield the seconds until it serves again."""
    for _ in range(rounds):
        with served(folder) as server:
            prefect(folder, "deployment", "run", "sft/tiny")
            warm(folder, server, "serve.log")
            server.kill()
            server.wait()
        begun = time.monotonic()
        with served(folder, port=server.args[-1]):
            yield time.monotonic() - begun


KILLED = {
    "the command": command,
    "a worker's training": run_of_a_worker,
    "the worker": worker,
    "flows serve": serving,
}


def main(rounds=ROUNDS):
    """Print the table, each row as soon as it is measured."""
    print("| killed with -9 | seconds until it resumes |\n|---|---|", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        for number, (name, kill) in enumerate(KILLED.items()):
            folder = Folder(Path(root) / str(number), STEPS)
            folder.run("curate", "--preset", "smoke", "--no-prefect", log="curate.log")
            taken = ", ".join(f"{seconds:.1f}" for seconds in kill(folder, rounds))
            print(f"| {name} | {taken} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
