"""Rollouts of a training on vLLM servers, whose weights follow those of the trained model.

Before each step the weights are written into a folder that trainer and servers share, loaded by
every server, and compared by a handshake. A server that was away during a step is given them again
before it is asked. Where training does not wait for the replies (`GroupsAhead`), those that are in
generation go on with the new weights; with adapters, they are finished with theirs.

A server that shares the trainer's GPU is asleep while the weights are updated: before it wakes up
the trainer releases the memory that it does not use, and after the last reply of a step the server
does, except for what its process itself takes. The trainer's weights and optimiser state stay.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from ...inference.vllm.control import ControlError, EngineControl, PauseMode, on_each
from ...inference.vllm.handshake import HandshakeError, shake_hands
from ...inference.vllm.nccl_transfer import NcclTransfer
from ...inference.vllm.policy import VllmPolicy
from ...inference.vllm.settings import VllmSettings
from ...models.model_folder import ADAPTER_FILE, ModelNotes
from ..trained_model import TrainedModel
from .companion_models import empty_gpu_cache

_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ServedRollouts:
    """Servers that generate the replies of a training.

    Attributes:
        urls: Base URLs of the servers.
        folder: Folder in which weights are handed over, which trainer and servers share, such as
            one in shared memory or on a shared file system.
        settings: Timeouts and retries of requests.
        handshake: Whether servers and trained model are compared after each update.
        handshake_bound: Largest accepted mean difference; None for a bound by precision.
        transfer: ``folder`` hands weights over as files; ``nccl`` sends them from GPU to GPU.
        colocated: Whether the one server shares the trainer's GPU, and sleeps during updates.

    Raises:
        ValueError: ``colocated`` with several servers, or with a transfer between GPUs.
    """

    urls: tuple[str, ...]
    folder: Path
    settings: VllmSettings = field(default_factory=VllmSettings)
    handshake: bool = True
    handshake_bound: float | None = None
    transfer: Literal["folder", "nccl"] = "folder"
    colocated: bool = False

    def __post_init__(self) -> None:
        """Reject what one GPU cannot do."""
        if self.colocated and (len(self.urls) != 1 or self.transfer != "folder"):
            raise ValueError(
                "rollout.colocated needs one server and transfer: folder, got "
                f"{len(self.urls)} and {self.transfer}; leave it out where servers have GPUs of "
                "their own"
            )


class WeightFollower:
    """Keeps the weights of servers equal to those of a trained model.

    Args:
        served: Servers.
        transfer: Transfer over NCCL; None to make it where the servers want it.
        max_staleness: How many steps the weights of replies may be behind; above 0, replies are in
            generation while weights are handed over, and all steps have one policy.
    """

    def __init__(
        self,
        served: ServedRollouts,
        transfer: NcclTransfer | None = None,
        *,
        max_staleness: int = 0,
    ) -> None:
        self._served = served
        self._staleness = max_staleness
        self._mode: PauseMode = "keep" if max_staleness else "wait"
        self._versions: list[str] = []  # that servers may be asked for, the newest last
        self._folder: Path | None = None
        self._lock = threading.RLock()  # replies of a returning server and updates are in threads
        # Adapters of another run have other names: those that are loaded are never replaced.
        self._run = secrets.token_hex(4)
        self._figures: dict[str, float] = {}
        self._policy: VllmPolicy | None = None
        self._nccl = transfer
        if served.transfer == "nccl" and transfer is None:
            self._nccl = NcclTransfer(served.urls, api_key=served.settings.api_key)

    def policy(self, trained: TrainedModel, step: int, *, notes: ModelNotes) -> VllmPolicy:
        """Return the policy of a step; the servers have its weights.

        In a distributed launch all processes have to call this; the first one hands the weights
        over.

        Raises:
            ControlError: A server could not load the weights, or all stayed away.
            HandshakeError: A server disagrees with the trained model.
            ValueError: Several processes train beside a server that shares the GPU of one.
        """
        world = trained.world
        if self._served.colocated and world.size > 1:
            raise ValueError(
                f"rollout.colocated is for one process on one GPU, got {world.size} processes: "
                "leave it or --processes out"
            )
        run = world.gather(lambda: self._run)[0]  # what the first process hands over
        version = f"step-{step}-{run}" if trained.has_adapters else f"step-{step}"
        policy = self._policy
        if policy is None or not self._staleness:
            policy = self._policy_of(trained, version, step, notes)
        if self._served.colocated:
            empty_gpu_cache()
        world.gather(lambda: self._update(trained, policy, version) if world.is_first else None)
        if trained.has_adapters:
            policy.served_as.model = version
        self._policy = policy
        return policy

    def look_up_again(self) -> None:
        """Give the weights again to each server that has others, before its next request."""
        if self._policy is not None:
            self._policy.servers.look_up_again()

    def end_replies(self) -> None:
        """Put a server that shares the trainer's GPU to sleep; no effect on others.

        Raises:
            ControlError: The server holds its memory still, or does not answer.
        """
        served, begun = self._served, time.monotonic()
        if not served.colocated:
            return
        control = EngineControl(served.urls[0], api_key=served.settings.api_key)
        gives_up_at = begun + served.settings.patience_seconds
        while True:
            try:
                control.sleep()
                break
            except ControlError as error:
                if error.is_gone:  # its memory is free; the next step waits for it
                    break
                if not error.is_away or time.monotonic() + _LOOK_SECONDS > gives_up_at:
                    raise
            time.sleep(_LOOK_SECONDS)
        self._figures |= {"engine/sleep_seconds": time.monotonic() - begun}

    def figures(self) -> Mapping[str, float]:
        """Return seconds and differences of the last update, and the use of the servers since."""
        used: Mapping[str, float] = {}
        if self._policy is not None:
            used = self._policy.usage.figures()
            self._policy.usage.restart()
        return self._figures | {f"engine/{name}": value for name, value in used.items()}

    def close(self) -> None:
        """Wake a sleeping server up, remove the last weights, and unload adapters."""
        if self._folder is None:
            return
        if self._served.colocated:
            empty_gpu_cache()
            with contextlib.suppress(ControlError):
                on_each(self._served.urls, EngineControl.wake_up, api_key=self._key)
        has_adapters = (self._folder / ADAPTER_FILE).is_file()
        for version in self._versions:
            if has_adapters:
                unload = partial(EngineControl.unload_adapters, name=version)
                with contextlib.suppress(ControlError):
                    on_each(self._served.urls, unload, api_key=self._key)
            shutil.rmtree(self._served.folder / version, ignore_errors=True)

    @property
    def _key(self) -> str:
        return self._served.settings.api_key

    def _policy_of(
        self, trained: TrainedModel, version: str, step: int, notes: ModelNotes
    ) -> VllmPolicy:
        served = self._served
        names: dict[str, str] = {}
        if trained.has_adapters:
            names["model"] = version
        elif not self._staleness:  # else versions are checked by group
            names["weight_version"] = version
        return VllmPolicy(
            trained.model.encoder,
            served.urls,
            policy_id=f"grpo/step-{step}",
            notes=notes,
            settings=replace(served.settings, **names),
            on_return=self._give_again,
        )

    def _update(self, trained: TrainedModel, policy: VllmPolicy, version: str) -> None:
        """Write the weights, load them everywhere, and compare."""
        served, begun = self._served, time.monotonic()
        self._figures = {}
        writes_files = self._nccl is None or trained.has_adapters
        if writes_files:
            self._write(trained, version)
            self._figures = {"engine/write_seconds": time.monotonic() - begun}
        gives_up_at = time.monotonic() + served.settings.patience_seconds
        while True:
            try:
                with self._lock:
                    if writes_files and self._version != version:
                        self._folder = served.folder / version
                        self._versions.append(version)
                    self._load_and_compare(trained, policy, version)
                break
            except (ControlError, HandshakeError) as error:
                if not error.is_away or time.monotonic() + _LOOK_SECONDS > gives_up_at:
                    raise
            time.sleep(_LOOK_SECONDS)
        self._remove_old(trained)

    def _write(self, trained: TrainedModel, version: str) -> None:
        """Write the weights of a step into their folder."""
        folder = self._served.folder / version
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        trained.hand_over(folder)

    @property
    def _version(self) -> str:
        """Version that was handed over last; empty before the first."""
        return self._versions[-1] if self._versions else ""

    @property
    def _retired(self) -> str:
        """Version of which no reply is asked for any more; empty where there is none."""
        return self._versions[0] if len(self._versions) > self._staleness + 1 else ""

    def _remove_old(self, trained: TrainedModel) -> None:
        """Remove weights that are not needed: of adapters, replies may name older ones."""
        most = self._staleness + 1 if trained.has_adapters else 1
        while len(self._versions) > most:
            shutil.rmtree(self._served.folder / self._versions.pop(0), ignore_errors=True)

    def _load_and_compare(self, trained: TrainedModel, policy: VllmPolicy, version: str) -> None:
        """Load the weights on the servers that answer, and compare those with our own model.

        Over NCCL all servers have to answer.
        """
        served, begun = self._served, time.monotonic()
        if self._nccl is not None and not trained.has_adapters:
            self._nccl.send(trained.checkpoint_weights(), version, mode=self._mode)
            self._figures |= {"engine/load_seconds": time.monotonic() - begun}
            self._compare(trained, policy, served.urls)
            return

        def give(control: EngineControl) -> None:
            if served.colocated:
                control.check_sleep()
            self._give(control, instead_of=self._retired)

        loaded = on_each(served.urls, give, api_key=self._key)
        policy.servers.look_up_again(without=loaded)
        if trained.has_adapters:
            policy.served_as.model = version
        self._figures |= {
            "engine/load_seconds": time.monotonic() - begun,
            "engine/servers": float(len(loaded)),
        }
        self._compare(trained, policy, loaded)

    def _compare(self, trained: TrainedModel, policy: VllmPolicy, urls: Sequence[str]) -> None:
        """Compare servers with our own model, if the settings say so."""
        if not self._served.handshake:
            return
        begun, bound = time.monotonic(), self._served.handshake_bound
        differences = shake_hands(
            policy, trained.model, urls=urls, bound=bound, is_fresh=not self._staleness
        )
        found = differences.values()
        self._figures |= {
            "engine/handshake_seconds": time.monotonic() - begun,
            "engine/handshake_mean": max(one.mean for one in found),
            "engine/handshake_max": max(one.largest for one in found),
        }

    def _give(self, control: EngineControl, *, instead_of: str = "") -> None:
        """Load the weights of this step on one server."""
        if self._folder is None:
            return
        wakes = self._served.colocated
        if (self._folder / ADAPTER_FILE).is_file():
            control.load_adapters(self._folder, self._version, instead_of=instead_of, wakes=wakes)
        else:
            control.load_weights(self._folder, self._version, mode=self._mode, wakes=wakes)

    def _give_again(self, url: str) -> None:
        """Load the weights of this step on a server that was away, unless it still has them."""
        with self._lock:
            if self._folder is None:  # not the process that handed them over
                return
            control = EngineControl(url, api_key=self._key)
            has_slept = self._served.colocated and control.is_asleep()
            has_adapters = (self._folder / ADAPTER_FILE).is_file()
            if has_slept or has_adapters or control.version() != self._version:
                self._give(control)
