"""The processes that train together: who this one is, and what they tell each other.

Started by ``accelerate launch``, ``torchrun``, or ``codedance grpo --processes 2``; all of them say
by environment variables who is who. Every process holds the same weights and makes the same
decisions from the same numbers; what is shared out is work: episodes and rows of a batch. So one
process and many give the same training, but for the order in which sums are rounded.
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
_CARRIER = "pt_gloo_runloop"  # what the kernel calls a thread that did what gloo was asked for
_SETTLING_SECONDS = 5.0


class ProcessError(RuntimeError):
    """Another of the processes failed; the message says which, and with what."""


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    """What a process made, or why it could not."""

    value: T | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class World:
    """Who this process is among how many.

    Attributes:
        rank: From 0.
        size: Of all.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and tells of progress."""
        return self.rank == 0

    def gather(self, work: Callable[[], T]) -> list[T]:
        """Do one's share and give what each process made, in order of rank.

        Raises:
            ProcessError: Another process could not do its share.
        """
        if self.size == 1:
            return [work()]
        failure: Exception | None = None
        outcome: _Outcome[T]
        try:
            outcome = _Outcome(value=work())
        except Exception as error:  # noqa: BLE001 - told to all, then raised
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

    def is_any(self, claim: bool) -> bool:
        """Whether any process says so."""
        return any(self.gather(lambda: claim))

    def add_gradients(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes; one that nobody has stays None."""
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
    """Join the processes that this one was started with; alone, there is nothing to join.

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
        atexit.register(leave_world)  # else the interpreter may wait for ever at its end
    return World(dist.get_rank(), dist.get_world_size())


def leave_world() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        _settle()
        dist.destroy_process_group()


def _settle() -> None:
    """Wait until gloo's threads are at rest.

    A collective is over for us when it has its result, but the thread that did it has yet to let go
    of the tensors, for which it needs the interpreter's lock. Asked for that while the interpreter
    ends, Python 3.11 ends the thread instead, and C++ aborts the process for it. The threads cannot
    be counted on to end with their group: default arguments, caches and meshes of torch hold it.
    """
    until = time.monotonic() + _SETTLING_SECONDS
    while _is_carrying() and time.monotonic() < until:
        time.sleep(0.001)


def _is_carrying() -> bool:
    """Whether a thread of gloo is at work; never where the kernel does not tell (macOS)."""
    for path in Path("/proc/self/task").glob("*/stat"):
        try:
            said = path.read_text(encoding="utf-8")  # lockless: who waited for the lock is awake
        except OSError:  # it has ended
            continue
        name, _, rest = said.partition("(")[2].rpartition(")")
        if name == _CARRIER and rest.split()[0] != "S":
            return True
    return False


def is_sharding_asked() -> bool:
    """Whether ``accelerate launch`` was told to shard the weights (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")


def balance(lengths: Sequence[float], *, parts: int) -> list[list[int]]:
    """Share out items so that the parts' sums of lengths are nearly equal, longest first.

    Returns:
        The indices of each part, ascending; a part is empty where there are too few items.

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
    """Let each process of a machine use a GPU of its own."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def _backend() -> str:
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    is_one_each = torch.cuda.is_available() and torch.cuda.device_count() >= here
    return "cpu:gloo,cuda:nccl" if is_one_each else "gloo"


def _buckets(weights: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Yield runs of weights of one type that are summed at a time."""
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
    """Return a tensor as it is, or put together what the processes hold of it."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value
