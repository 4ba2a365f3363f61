"""Settings that say how, not what: `server`, `rollout`, `alarms` and `tracking` of a preset.

Changing them reruns no stage.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from .strict_model import LocalPath, StrictModel

_POLICIES = ("nano", "oracle", "random", "teacher", "thumbnail")
"""Policies and base models that are no folders, whatever the current folder holds."""


def absolute_model(name: str) -> str:
    """Return a model's name, or the absolute path of its folder."""
    is_folder = name not in _POLICIES and os.path.isdir(name)
    return str(Path(name).absolute()) if is_folder else name


ModelName = Annotated[str, LocalPath(absolute_model)]
FolderName = Annotated[str, LocalPath(lambda name: str(Path(name).expanduser().absolute()))]
Limit = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ServerSettings(StrictModel):
    """Settings of the server of a policy ``openai:MODEL``; `Endpoint` documents each field.

    The API key is read only from the environment variable ``OPENAI_API_KEY``.
    """

    base_url: str | None = None
    requests_per_minute: Limit = 0.0
    tokens_per_minute: Limit = 0.0
    price_input: Limit = 0.0
    price_output: Limit = 0.0
    concurrency: Annotated[int, Field(ge=1)] = 8
    timeout_seconds: Annotated[float, Field(gt=0.0)] = 120.0
    max_retries: Annotated[int, Field(ge=0)] = 4
    notes: ModelName | None = None


class RolloutSettings(StrictModel):
    """Settings of the engine that generates the replies of model folders and hub ids.

    The servers' API key is read only from the environment variable ``VLLM_API_KEY``.

    Attributes:
        engine: ``own`` generates in this process; ``vllm`` on vLLM servers.
        urls: Base URLs of vLLM servers; where there are none, one is started on this machine.
        gpus: Indices of the GPUs of a server that is started here; empty for the CPU, None for the
            first GPU where there is one (beside a training the last of several).
        dtype: Precision of a server that is started here; ``auto`` for that of the weights.
        memory_share: Share of each GPU's memory for a server that is started here; None for 0.9,
            and beside a training with ``colocated`` for what that leaves.
        colocated: Whether training and the one server share a GPU: the server sleeps while the
            weights are updated.
        timeout_seconds: Longest time per reply.
        max_retries: Repetitions of a request that a server failed to answer.
        patience_seconds: Longest time that a reply waits while every server is unreachable.
        seeds: Whether replies are drawn with seeds of their own; None for all but a server that is
            started here on the CPU, where vLLM dies if a seeded reply is interrupted.
        transfer: How training hands new weights over: ``folder``, as files, or ``nccl``, between
            GPUs (never run by us); adapters always go as files.
        weights_folder: Folder in which training hands new weights over, on a file system that
            trainer and servers share; None for the shared memory of this machine.
        handshake: Whether a prompt with an image is compared with our own model, first and after
            each update of the weights.
        handshake_bound: Largest accepted mean difference; None for a bound by precision.
        teacher_urls: Base URLs of vLLM servers that have the weights of ``grpo.teacher``; empty to
            load them in the training process. Timeouts and retries are those of replies.
    """

    engine: Literal["own", "vllm"] = "own"
    urls: tuple[str, ...] = ()
    gpus: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    memory_share: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    colocated: bool = False
    timeout_seconds: Annotated[float, Field(gt=0.0)] = 600.0
    max_retries: Annotated[int, Field(ge=0)] = 3
    patience_seconds: Annotated[float, Field(ge=0.0)] = 300.0
    seeds: bool | None = None
    transfer: Literal["folder", "nccl"] = "folder"
    weights_folder: FolderName | None = None
    handshake: bool = True
    handshake_bound: Annotated[float, Field(gt=0.0)] | None = None
    teacher_urls: tuple[str, ...] = ()

    @field_validator("urls", "teacher_urls")
    @classmethod
    def _urls_are_addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what is no URL when the settings are read, before any stage runs."""
        from ...policies.inference.server_words import checked_url

        return tuple(checked_url(url) for url in urls)

    @model_validator(mode="after")
    def _one_gpu_has_one_server(self) -> RolloutSettings:
        """Refuse what one GPU cannot do when the settings are read."""
        if self.colocated and (len(self.urls) > 1 or self.transfer != "folder"):
            raise ValueError(
                "colocated needs one server and transfer: folder, got "
                f"{len(self.urls)} and {self.transfer}"
            )
        return self


class AlarmSettings(StrictModel):
    """Thresholds of training alarms; `AlarmConfig` documents each field, 0 turns an alarm off.

    Attributes:
        logp_drift: None for 0.05 in float32, and 1.0 with ``grpo.bf16``.
    """

    window: Annotated[int, Field(ge=1)] = 10
    tool_calls_share: Share = 0.25
    constant_steps: Annotated[int, Field(ge=0)] = 10
    success_drop: Share = 0.1
    accuracy_drop: Share = 0.25
    entropy_share: Share = 0.1
    infrastructure_share: Share = 0.05
    session_loss_share: Share = 0.02
    logp_drift: Limit | None = None
    logp_mean: Limit = 0.05
    limited_share: Share = 0.05
    effective_share: Share = 0.5


SinkName = Literal["tensorboard", "trackio", "wandb"]


class TrackingSettings(StrictModel):
    """Settings of the tools that show a run's metrics besides MLflow.

    Each tool is an extra of its own (``codedance[wandb]``), and reads its own environment
    variables; keys and passwords are never settings.

    Attributes:
        also: Tools that get every stage's metrics: ``tensorboard``, ``trackio``, ``wandb``.
        project: Name of the project in W&B (unless ``WANDB_PROJECT`` names one) and in trackio.
    """

    also: tuple[SinkName, ...] = ()
    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "codedance"

    @field_validator("also")
    @classmethod
    def _tools_are_named_once(cls, also: tuple[SinkName, ...]) -> tuple[SinkName, ...]:
        """Refuse a tool that is named twice: it would show every point twice."""
        if len(set(also)) < len(also):
            raise ValueError(f"names a tool twice: {', '.join(also)}; name each once")
        return also
