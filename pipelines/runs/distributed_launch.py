"""Distributed launch: several processes for one training stage, of which the first leads.

Rank 0 is an ordinary command: it alone uses the store, MLflow and Prefect and writes reports. At a
training stage it broadcasts the trainer's inputs to the other ranks; each trains its share with a
sandbox of its own and waits for the next stage. ``--processes`` starts the processes on this
machine, ``accelerate launch`` on one or several machines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...sandbox.plain_text import escape_controls
from ..config.sections.sandbox_settings import SandboxSettings, open_configured
from .context import StageInterrupted
from .processes import Guard, free_port

if TYPE_CHECKING:
    from ...envs.types import Task
    from ...policies.interface import Demonstration
    from ...policies.training.grpo.config import GRPOConfig
    from ...policies.training.grpo.distillation.served_teacher import TeacherServers
    from ...policies.training.grpo.served_rollouts import ServedRollouts
    from ...policies.training.grpo.task_order.curriculum import History
    from ...policies.training.sft import SFTConfig

_GRACE_SECONDS = 30.0


class LaunchError(RuntimeError):
    """The processes cannot be launched together; the message says what to do."""


@dataclass(frozen=True, slots=True)
class SFTJob:
    """Inputs of a cold start for the other ranks."""

    model: str
    demonstrations: Sequence[Demonstration]
    config: SFTConfig
    folder: Path

    def follow(self) -> None:
        """Train the share of this process."""
        from ...policies.training.sft import train_sft

        train_sft(self.model, self.demonstrations, self.config, folder=self.folder)


@dataclass(frozen=True, slots=True)
class GRPOJob:
    """Inputs of a reinforcement learning stage for the other ranks."""

    model: str
    tasks: Sequence[Task]
    config: GRPOConfig
    folder: Path
    history: History | None
    sandbox: SandboxSettings
    served: ServedRollouts | None = None
    teacher_servers: TeacherServers | None = None

    def follow(self) -> None:
        """Train the share of this process, in a sandbox of its own."""
        from ...policies.training.grpo.loop import train_grpo

        with open_configured(self.sandbox) as sandbox:
            train_grpo(
                self.model,
                self.tasks,
                self.config,
                sandbox=sandbox,
                folder=self.folder,
                history=self.history,
                served=self.served,
                teacher_servers=self.teacher_servers,
            )


Job = SFTJob | GRPOJob


def announce(job: Job | None) -> None:
    """Broadcast the next job to the other ranks, None for no more; do nothing without any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return
    from ...policies.training.distributed.processes import join_world

    join_world()
    import torch.distributed as dist

    dist.broadcast_object_list([job], src=0)


def follow() -> int:
    """Train what the first process announces until it announces None; return the exit code."""
    _share_cores(sys.argv[1:])
    import torch.distributed as dist

    from ...policies.training.distributed.processes import join_world
    from ...policies.training.training_state import TrainingInterrupted

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides when to stop
    world = join_world()
    while True:
        received: list[Job | None] = [None]
        try:
            dist.broadcast_object_list(received, src=0)
        except RuntimeError:
            return 1  # the first process has ended and reported why
        job = received[0]
        if job is None:
            return 0
        try:
            with suppress(TrainingInterrupted):
                job.follow()
        except Exception as error:  # noqa: BLE001 - reported as this process ends
            print(  # noqa: T201
                escape_controls(f"codedance: process {world.rank} of {world.size}: {error}"),
                file=sys.stderr,
            )
            return 1


def _share_cores(arguments: Sequence[str]) -> None:
    """Apply ``--workers``, which ``accelerate launch`` passes to every process."""
    given = [
        value.partition("=")[2] or following
        for value, following in zip(arguments, [*arguments[1:], ""], strict=False)
        if value == "--workers" or value.startswith("--workers=")
    ]
    if given and given[-1].isdecimal():
        share = max(1, int(given[-1]) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        os.environ |= {"OMP_NUM_THREADS": str(share), "MKL_NUM_THREADS": str(share)}


@contextmanager
def launched_processes(processes: int) -> Generator[None]:
    """Launch ``processes`` processes for the training stages in the context; 1 launches none.

    Raises:
        LaunchError: This command is already one of several processes.
    """
    if processes == 1:
        yield
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise LaunchError(
            "--processes launches processes itself: leave it out under accelerate launch"
        )
    shared = _environment(processes)
    before = {name: os.environ.get(name) for name in shared}
    os.environ.update(shared)
    followers = [_start(rank) for rank in range(1, processes)]
    guards = [Guard(follower.pid) for follower in followers]  # for when this process is killed
    try:
        yield
    except Exception as error:
        if not isinstance(error, StageInterrupted):  # they may wait in a collective for this one
            for follower in followers:
                follower.kill()
        raise
    finally:
        dismiss()
        for follower in followers:
            _end(follower)
        for guard in guards:
            guard.dismiss()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _environment(processes: int) -> dict[str, str]:
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    cores = int(named) if named.isdecimal() else os.cpu_count() or 1
    threads = str(max(1, cores // processes))  # all of them share the cores of one process
    return {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }


def _start(rank: int) -> subprocess.Popen[bytes]:
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    command = [sys.executable, "-m", "codedance.pipelines.cli"]
    environment = os.environ | own
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )


def dismiss() -> None:
    """End the other ranks in any state."""
    with suppress(RuntimeError):  # they have ended already
        announce(None)
    if "torch" in sys.modules:
        from ...policies.training.distributed.processes import leave_world

        leave_world()


def _end(follower: subprocess.Popen[bytes]) -> None:
    try:
        follower.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        follower.kill()
        follower.wait()
