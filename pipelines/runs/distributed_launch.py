"""Several processes for one training stage: the first does everything else, the others follow.

Rank 0 is an ordinary command: store, MLflow, Prefect, reports are its own. When it comes to a
training stage it hands what the trainer needs to the others; each trains its share with a sandbox
of its own and waits for the next stage. They are started by ``--processes`` on this machine, or by
``accelerate launch`` on one or many.
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

from ..config.settings import SandboxSettings, open_configured
from .processes import Guard, free_port

if TYPE_CHECKING:
    from ...envs.types import Task
    from ...policies.interface import Demonstration
    from ...policies.training.grpo.config import GRPOConfig
    from ...policies.training.grpo.curriculum import History
    from ...policies.training.sft import SFTConfig

_GRACE_SECONDS = 30.0


class LaunchError(RuntimeError):
    """The processes cannot be started together; the message says what to do."""


@dataclass(frozen=True, slots=True)
class SFTJob:
    """What the others need to know of a cold start."""

    model: str
    demonstrations: Sequence[Demonstration]
    config: SFTConfig
    folder: Path

    def follow(self) -> None:
        """Train this process's share."""
        from ...policies.training.sft import train_sft

        train_sft(self.model, self.demonstrations, self.config, folder=self.folder)


@dataclass(frozen=True, slots=True)
class GRPOJob:
    """What the others need to know of a reinforcement."""

    model: str
    tasks: Sequence[Task]
    config: GRPOConfig
    folder: Path
    history: History | None
    sandbox: SandboxSettings

    def follow(self) -> None:
        """Train this process's share, in a sandbox of its own."""
        from ...policies.training.grpo.loop import train_grpo

        with open_configured(self.sandbox) as sandbox:
            train_grpo(
                self.model,
                self.tasks,
                self.config,
                sandbox=sandbox,
                folder=self.folder,
                history=self.history,
            )


Job = SFTJob | GRPOJob


def announce(job: Job | None) -> None:
    """Hand the others their next work, or None: there is no more; alone, nothing happens."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return
    from ...policies.training.distributed.processes import join_world

    join_world()
    import torch.distributed as dist

    dist.broadcast_object_list([job], src=0)


def follow() -> int:
    """Train what the first process announces until there is no more; gives the exit code."""
    _share_cores(sys.argv[1:])
    import torch.distributed as dist

    from ...policies.training.distributed.processes import join_world
    from ...policies.training.training_state import TrainingInterrupted

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides when to stop
    world = join_world()
    while True:
        told: list[Job | None] = [None]
        try:
            dist.broadcast_object_list(told, src=0)
        except RuntimeError:
            return 1  # the first process is gone, and has said why
        job = told[0]
        if job is None:
            return 0
        try:
            with suppress(TrainingInterrupted):
                job.follow()
        except Exception as error:  # noqa: BLE001 - the edge of this process
            print(  # noqa: T201
                f"codedance: process {world.rank} of {world.size}: {error}", file=sys.stderr
            )
            return 1


def _share_cores(arguments: Sequence[str]) -> None:
    """Heed ``--workers`` of a command line that ``accelerate launch`` gave to every process."""
    told = [
        value.partition("=")[2] or following
        for value, following in zip(arguments, [*arguments[1:], ""], strict=False)
        if value == "--workers" or value.startswith("--workers=")
    ]
    if told and told[-1].isdecimal():
        share = max(1, int(told[-1]) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        os.environ |= {"OMP_NUM_THREADS": str(share), "MKL_NUM_THREADS": str(share)}


@contextmanager
def launched_processes(processes: int) -> Generator[None]:
    """Have so many processes for the training stages within; 1 starts none.

    Raises:
        LaunchError: This command is one of several already.
    """
    if processes == 1:
        yield
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise LaunchError(
            "--processes starts processes by itself: leave it out under accelerate launch"
        )
    shared = _environment(processes)
    before = {name: os.environ.get(name) for name in shared}
    os.environ.update(shared)
    followers = [_start(rank) for rank in range(1, processes)]
    guards = [Guard(follower.pid) for follower in followers]  # they end with us, if we are killed
    try:
        yield
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
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    cores = int(told) if told.isdecimal() else os.cpu_count() or 1
    threads = str(max(1, cores // processes))  # all of them share what one would have had
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
    """Let the others go, whatever state they are in."""
    with suppress(RuntimeError):  # they are gone already
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
