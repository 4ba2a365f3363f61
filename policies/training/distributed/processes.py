"""Processes of a distributed launch: rank, world size and collectives.

Started by ``accelerate launch``, ``torchrun``, or ``codedance grpo --processes 2``, which all set
rank and size in environment variables. Every process holds the same weights and makes the same
decisions from the same numbers; the work is divided: episodes and rows of a batch. One process and
many therefore give the same training, except for the order in which sums are rounded.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

_PATIENCE = timedelta(days=7)  # a process that dies is noticed at once, whatever this is
_BUCKET = 2**24  # numbers that are summed over processes at a time
_CARRIER = "pt_gloo_runloop"  # the kernel's name for a thread that ran a gloo collective
_SETTLING_SECONDS = 5.0


class ProcessError(RuntimeError):
    """Another process failed; the message names its rank and error."""


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    """Result of a process, or its error."""

    value: T | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class World:
    """Rank of this process and number of processes.

    Attributes:
        rank: Rank of this process, from 0.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and reports progress."""
        return self.rank == 0

    def gather(self, work: Callable[[], T]) -> list[T]:
        """Run this process's share of the work and return the results of all, in order of rank.

        Raises:
            ProcessError: Another process failed.
        """
        if self.size == 1:
            return [work()]
        failure: Exception | None = None
        outcome: _Outcome[T]
        try:
            outcome = _Outcome(value=work())
        except Exception as error:  # noqa: BLE001 - sent to all, then raised
            failure = error
            outcome = _Outcome(error=f"{type(error).__name__}: {error}")
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, outcome)
        if failure is not None:
            raise failure
        for rank, one in enumerate(found):
            if one.error is not None:
                raise ProcessError(f"process {rank} of {self.size} failed: {one.error}")
        return [one.value for one in found]

    def add_gradients(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes; None where no process has one."""
        if self.size == 1:
            return
        held = list(weights)
        device = held[0].device
        has_one = torch.tensor([float(one.grad is not None) for one in held], device=device)
        dist.all_reduce(has_one)
        needed = [one for one, count in zip(held, has_one.tolist(), strict=True) if count]
        for bucket in _buckets(needed):
            parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in bucket]
            flat = torch.cat([part.reshape(-1) for part in parts])
            dist.all_reduce(flat)
            for one, summed in zip(bucket, flat.split([p.numel() for p in parts]), strict=True):
                one.grad = summed.reshape(one.shape).clone()


def join_world() -> World:
    """Join the process group of this launch; a single process needs none.

    Raises:
        ProcessError: The environment names several processes, but they cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return World()
    if not dist.is_initialized():
        _take_device()
        try:
            dist.init_process_group(_backend(), timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise ProcessError(
                f"cannot join the {size} processes at {os.environ.get('MASTER_ADDR')}:"
                f"{os.environ.get('MASTER_PORT')}: {error}"
            ) from error
        atexit.register(leave_world)  # otherwise the interpreter can hang at exit
    return World(dist.get_rank(), dist.get_world_size())


def leave_world() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        _settle()
        dist.destroy_process_group()


def _settle() -> None:
    """Wait until gloo's threads are idle.

    A collective returns when it has its result, but its thread still has to release the tensors,
    which needs the interpreter's lock. If it requests the lock while the interpreter exits, Python
    3.11 ends the thread instead, and C++ then aborts the process. The threads do not reliably end
    with their group: default arguments, caches and meshes of torch hold references to it.
    """
    until = time.monotonic() + _SETTLING_SECONDS
    while _is_carrying() and time.monotonic() < until:
        time.sleep(0.001)


def _is_carrying() -> bool:
    """Return whether a gloo thread is busy; False where the kernel does not report it (macOS)."""
    for path in Path("/proc/self/task").glob("*/stat"):
        try:
            said = path.read_text(encoding="utf-8")  # lockless: a thread waiting for it has woken
        except OSError:  # it has ended
            continue
        name, _, rest = said.partition("(")[2].rpartition(")")
        if name == _CARRIER and rest.split()[0] != "S":
            return True
    return False


def is_sharding_asked() -> bool:
    """Return whether ``accelerate launch`` was configured to shard the weights (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")


def balance(lengths: Sequence[float], *, parts: int) -> list[list[int]]:
    """Divide items so that the parts' sums of lengths are nearly equal, longest first.

    Returns:
        Indices of each part, ascending; a part is empty where there are too few items.

    >>> balance([5, 1, 3, 3], parts=2)
    [[0, 1], [2, 3]]
    """
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [0.0] * parts
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        part = min(range(parts), key=lambda n: (loads[n], len(shares[n]), n))
        shares[part].append(index)
        loads[part] += lengths[index]
    return [sorted(share) for share in shares]


def _take_device() -> None:
    """Assign a separate GPU to each process of a machine."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def _backend() -> str:
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    is_one_each = torch.cuda.is_available() and torch.cuda.device_count() >= here
    return "cpu:gloo,cuda:nccl" if is_one_each else "gloo"


def _buckets(weights: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Yield buckets of consecutive weights of one dtype, to be summed together."""
    bucket: list[torch.nn.Parameter] = []
    count = 0
    for one in weights:
        if bucket and (count + one.numel() > _BUCKET or one.dtype != bucket[0].dtype):
            yield bucket
            bucket, count = [], 0
        bucket.append(one)
        count += one.numel()
    if bucket:
        yield bucket


def whole(value: Tensor) -> Tensor:
    """Return a plain tensor as it is, and a sharded one gathered from all processes."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value
