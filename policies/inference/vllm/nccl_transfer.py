"""New weights over NCCL, from the trainer's GPU into those of the servers.

Written against vLLM's documented interface for weight transfer (``--weight-transfer-config
'{"backend": "nccl"}'``, joined by a unique id, one broadcast per parameter) and tested against a
fake of it. It needs two GPUs and has never been run on any.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor

from .control import ControlError, EngineControl, PauseMode

_TRAINER = 0  # rank of the trainer in the group; the servers' workers follow


class Group(Protocol):
    """The trainer's end of a group for collective communication."""

    def broadcast(self, values: Tensor) -> None:
        """Send a tensor to all others."""
        ...


Join = Callable[[int, bytes], Group]
"""Joins a group as rank 0, from its size and unique id; returns when all have joined."""


class NcclGroup:
    """A group of GPUs, with the bindings of NCCL that come with torch.

    Args:
        size: Number of ranks.
        unique_id: Unique id of the group, 128 bytes.
    """

    def __init__(self, size: int, unique_id: bytes) -> None:
        from torch.cuda import nccl

        self._nccl: Any = nccl
        self._communicators = [nccl.init_rank(size, unique_id, _TRAINER)]
        # vLLM's end sums one element right after it has joined, to warm up.
        warm_up = [torch.zeros(1, device="cuda")]
        nccl.all_reduce(warm_up, comms=self._communicators)
        torch.cuda.synchronize()

    def broadcast(self, values: Tensor) -> None:
        """Send a tensor to all others."""
        sent = [values.to("cuda").contiguous()]
        self._nccl.broadcast(sent, root=_TRAINER, comms=self._communicators)
        torch.cuda.synchronize()


class NcclTransfer:
    """Sends weights to servers that were started with ``--transfer nccl``.

    Args:
        urls: Base URLs of the servers.
        api_key: API key; empty where the servers need none.
        join: Function that joins the group; None for `NcclGroup`.
        unique_id: Function that makes a unique id; None for NCCL's.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        api_key: str = "",
        join: Join | None = None,
        unique_id: Callable[[], bytes] | None = None,
    ) -> None:
        self._controls = [EngineControl(url, api_key=api_key) for url in urls]
        self._join: Join = join or NcclGroup
        self._unique_id = unique_id or _nccl_id
        self._group: Group | None = None

    def send(
        self, weights: Mapping[str, Tensor], version: str, *, mode: PauseMode = "wait"
    ) -> None:
        """Send weights to all servers; they stay paused if that fails, and join anew next time.

        Args:
            weights: Weights by their names in a checkpoint.
            version: Name of the weights, which is reported with each token from then on.
            mode: What becomes of replies in generation.

        Raises:
            ControlError: A server is unreachable, or was started without weight transfer.
        """
        group = self._group or self._connect()
        self._group = None  # until all has been sent
        self._on_each(lambda one: one.pause(mode))
        self._on_each(lambda one: one.call("/start_weight_update"))
        info = {
            "names": list(weights),
            "dtype_names": [str(one.dtype).removeprefix("torch.") for one in weights.values()],
            "shapes": [list(one.shape) for one in weights.values()],
        }
        pool = ThreadPoolExecutor(len(self._controls), "update")
        try:
            waiting = [
                pool.submit(one.call, "/update_weights", {"update_info": info})
                for one in self._controls
            ]
            for values in weights.values():
                _raise_failed(waiting)
                group.broadcast(values)
            for one in waiting:
                one.result()
        finally:  # where one server failed, the others wait for weights that do not come
            pool.shutdown(wait=False)
        self._on_each(lambda one: one.call("/finish_weight_update", {"weight_version": version}))
        self._on_each(EngineControl.reset_caches)  # this way of loading empties none
        self._on_each(EngineControl.resume)
        self._group = group

    def _connect(self) -> Group:
        """Join a group with all workers of all servers."""
        sizes = [one.world_size() for one in self._controls]
        size = 1 + sum(sizes)
        unique_id = self._unique_id()
        with ThreadPoolExecutor(len(self._controls), "join") as pool:
            waiting: list[Future[None]] = []
            for number, one in enumerate(self._controls):
                init = {
                    "nccl_unique_id_b64": base64.b64encode(unique_id).decode("ascii"),
                    "rank_offset": 1 + sum(sizes[:number]),
                    "world_size": size,
                    "packed": False,
                }
                body = {"init_info": init}
                waiting.append(pool.submit(one.call, "/init_weight_transfer_engine", body))
            group = self._join(size, unique_id)
            for one in waiting:
                one.result()
        return group

    def _on_each(self, tell: Callable[[EngineControl], None]) -> None:
        with ThreadPoolExecutor(len(self._controls), "control") as pool:
            list(pool.map(tell, self._controls))


def _nccl_id() -> bytes:
    from torch.cuda import nccl

    return bytes(nccl.unique_id())


def _raise_failed(waiting: Sequence[Future[None]]) -> None:
    """Raise the error of a server that stopped waiting for weights: a broadcast would hang."""
    for one in waiting:
        if one.done() and (error := one.exception()) is not None:
            raise error if isinstance(error, ControlError) else ControlError(str(error))
