"""Policies on vLLM: servers found or started, given the weights, and compared with our model."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ....policies.inference.endpoint import OPENAI_PREFIX
from ...config.server_settings import RolloutSettings
from ...config.yaml_file import SettingsError
from ...runs.processes import free_port
from .command import MEMORY_SHARE, EngineOptions
from .environment import EngineError
from .server import running_engine
from .sharing import shared_memory

if TYPE_CHECKING:
    from ....policies.inference.vllm.policy import VllmPolicy
    from ....policies.inference.vllm.settings import VllmSettings
    from ....policies.models.token_model import TokenModel
    from ....policies.training.grpo.config import GRPOConfig
    from ....policies.training.grpo.distillation.served_teacher import TeacherServers
    from ....policies.training.grpo.served_rollouts import ServedRollouts

_SHARED_MEMORY = "/dev/shm"
KEY_VARIABLE = "VLLM_API_KEY"
_SCRIPTED = frozenset({"oracle", "random", "teacher", "thumbnail"})
Say = Callable[[str], None]


def is_model(source: str) -> bool:
    """Return whether a policy is a model folder or hub id, or ``nano``."""
    return source not in _SCRIPTED and not source.startswith(OPENAI_PREFIX)


def is_served(source: str, settings: RolloutSettings) -> bool:
    """Return whether vLLM generates the replies of a policy: a model's, if the settings say so."""
    return settings.engine == "vllm" and is_model(source)


def refuse_unserved(source: str) -> None:
    """Refuse a policy for which an engine was asked, and which has none.

    Raises:
        SettingsError: It is not a model.
    """
    if not is_model(source):
        raise SettingsError(
            f"--engine: it generates the replies of model folders and hub ids, and {source} is "
            "none: leave it out"
        )


@contextmanager
def engine_policy(
    source: str,
    settings: RolloutSettings,
    *,
    log: Path,
    say: Say,
    check: Callable[[], None] = lambda: None,
) -> Generator[VllmPolicy]:
    """Provide a policy on vLLM servers that have the weights of a model, while the context lasts.

    Servers that the settings name are given the weights if they have others; without any, one is
    started on this machine.

    Args:
        source: ``nano``, a model folder or a hub id.
        settings: Settings.
        log: File that the output of a server of our own is appended to.
        say: Called with messages.
        check: Called while a server starts; an exception that it raises ends the wait.

    Raises:
        EngineError: There is no vLLM, and its environment could not be made.
        ServiceError: Our own server did not start.
        ModelFolderError: The folder lacks a part of the model.
        PolicyUnavailableError: A server is unreachable, or disagrees with our own model.
    """
    from ....policies.inference.vllm.control import EngineControl, on_each
    from ....policies.inference.vllm.policy import VllmPolicy
    from ....policies.loading import NANO_FOLDER
    from ....policies.training.grpo.companion_models import empty_gpu_cache

    folder = str(NANO_FOLDER) if source == "nano" else source
    with ExitStack() as stack:
        urls: Sequence[str] = settings.urls
        if not urls:
            empty_gpu_cache()  # of the stages before it
            options = _own_options(settings, beside_training=False)
            started = running_engine(folder, options, log=log, say=say, check=check)
            urls = [stack.enter_context(started).url]
        policy = VllmPolicy.of_folder(
            folder, urls, policy_id=f"{source}@vllm", settings=vllm_settings(settings)
        )
        if settings.colocated:  # it sleeps still if the training was killed
            on_each(urls, EngineControl.wake_up, api_key=policy.settings.api_key)
        if settings.handshake:
            _agree(policy, folder, settings, say)
        yield policy


def vllm_settings(settings: RolloutSettings) -> VllmSettings:
    """Return the settings of requests."""
    from ....policies.inference.vllm.settings import VllmSettings

    is_own_on_cpu = not settings.urls and not _own_gpus(settings, beside_training=False)
    return VllmSettings(
        api_key=os.environ.get(KEY_VARIABLE, ""),
        timeout_seconds=settings.timeout_seconds,
        max_retries=settings.max_retries,
        patience_seconds=settings.patience_seconds,
        seeds=not is_own_on_cpu if settings.seeds is None else settings.seeds,
    )


def _agree(policy: VllmPolicy, folder: str, settings: RolloutSettings, say: Say) -> None:
    """Compare the servers with our own model; load its weights on those that have others."""
    from ....policies.inference.vllm.control import ControlError, EngineControl, on_each
    from ....policies.inference.vllm.handshake import HandshakeError, shake_hands
    from ....policies.models.model_folder import load_token_model

    model: TokenModel = load_token_model(folder, device="cpu")
    bound = settings.handshake_bound
    try:
        found = shake_hands(policy, model, bound=bound)
    except HandshakeError as error:
        path = Path(folder).absolute()
        if not settings.urls or not path.is_dir():
            raise
        say(f"{error}; loading the weights of {path}")

        def load(one: EngineControl) -> None:
            one.load_weights(path, f"{path.parent.name}/{path.name}")

        try:
            loaded = on_each(policy.urls, load, api_key=policy.settings.api_key)
        except ControlError as refusal:
            if refusal.is_away:
                raise error from refusal
            raise HandshakeError(f"{error}; and no weights can be loaded: {refusal}") from refusal
        found = shake_hands(policy, model, urls=loaded, bound=bound, is_fresh=True)
    worst = max(one.mean for one in found.values())
    count = f"{len(found)} servers" if len(found) > 1 else next(iter(found))
    say(f"vLLM: {count} and our own model agree (mean difference {worst:.1g})")


@contextmanager
def training_engine(
    source: str,
    settings: RolloutSettings,
    *,
    config: GRPOConfig,
    log: Path,
    say: Say,
    check: Callable[[], None] = lambda: None,
) -> Generator[ServedRollouts | None]:
    """Provide the servers of a training while the context lasts; None where it needs none.

    Args:
        source: Initial model: a folder or hub id.
        settings: Settings.
        config: Settings of the training.
        log: File that the output of a server of our own is appended to.
        say: Called with messages.
        check: Called while a server starts; an exception that it raises ends the wait.

    Raises:
        EngineError: There is no vLLM, its environment could not be made, or the GPU that it
            shares with the training has too little memory.
        ServiceError: Our own server did not start.
    """
    if settings.engine != "vllm":
        yield None
        return
    from ....policies.training.grpo.companion_models import empty_gpu_cache
    from ....policies.training.grpo.served_rollouts import ServedRollouts

    with ExitStack() as stack:
        urls = settings.urls
        if not urls:
            empty_gpu_cache()  # of the stages before it
            options = _own_options(settings, beside_training=True)
            adapters = 2 + config.max_staleness  # the oldest in use, to the one that is loaded
            options = replace(options, lora_rank=config.lora_r, adapters=adapters)
            if settings.colocated:
                options = _beside(source, config, options, settings, say)
            started = running_engine(source, options, log=log, say=say, check=check)
            urls = (stack.enter_context(started).url,)
        yield ServedRollouts(
            urls,
            stack.enter_context(weights_folder(settings)),
            vllm_settings(settings),
            handshake=settings.handshake,
            handshake_bound=settings.handshake_bound,
            transfer=settings.transfer,
            colocated=settings.colocated,
        )


def teacher_servers(settings: RolloutSettings) -> TeacherServers | None:
    """Return the servers of a training's teacher; None where it is loaded in the training."""
    if not settings.teacher_urls:
        return None
    from ....policies.training.grpo.distillation.served_teacher import TeacherServers

    return TeacherServers(settings.teacher_urls, vllm_settings(settings))


@contextmanager
def weights_folder(settings: RolloutSettings) -> Generator[Path]:
    """Provide a folder in which weights are handed over: the settings' own, or shared memory."""
    if settings.weights_folder is not None:
        named = Path(settings.weights_folder).expanduser().absolute()
        named.mkdir(parents=True, exist_ok=True)
        yield named
        return
    has_memory = os.access(_SHARED_MEMORY, os.W_OK)
    made = Path(tempfile.mkdtemp(prefix="codedance-", dir=_SHARED_MEMORY if has_memory else None))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _beside(
    source: str, config: GRPOConfig, options: EngineOptions, settings: RolloutSettings, say: Say
) -> EngineOptions:
    """Return the options of a server that shares the training's GPU: what the plan counts with."""
    if config.bf16 and options.dtype == "auto":
        options = replace(options, dtype="bfloat16")
    if settings.memory_share is not None or not options.gpus:
        return options
    share = shared_memory(source, config, options)
    say(f"vLLM gets {share:.0%} of the GPU that it shares with the training")
    return replace(options, memory_share=share)


def _own_options(settings: RolloutSettings, *, beside_training: bool) -> EngineOptions:
    """Return the options of a server that is started here."""
    return EngineOptions(
        port=free_port(),
        gpus=_own_gpus(settings, beside_training=beside_training),
        dtype=settings.dtype,
        memory_share=settings.memory_share or MEMORY_SHARE,
        colocated=settings.colocated,
        transfer=settings.transfer,
    )


def _own_gpus(settings: RolloutSettings, *, beside_training: bool) -> tuple[int, ...]:
    """Return the GPUs of a server that is started here.

    Raises:
        EngineError: There is one GPU, which the training takes, and the settings name none.
    """
    import torch

    count = torch.cuda.device_count()
    if settings.gpus is not None or not count:
        return settings.gpus or ()
    if not beside_training or settings.colocated:
        return (0,)
    if count == 1:
        raise EngineError(
            "the training takes the only GPU: set rollout.colocated: true (--colocated), and the "
            "server sleeps while the weights are updated; or name rollout.urls of servers elsewhere"
        )
    return (count - 1,)
