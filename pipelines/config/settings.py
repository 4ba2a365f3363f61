"""The stages' parameters: the key ``presets`` in flows.yaml, validated field by field."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, create_model, field_validator, model_validator

from ...envs.parsing import Interface
from ...policies.training.grpo.correction import ImportanceSamplingMode, correction_of
from .registry import BUILT_IN, added_settings
from .sections.sandbox_settings import Backend, Count, SandboxSettings
from .server_settings import (
    AlarmSettings,
    Limit,
    ModelName,
    RolloutSettings,
    ServerSettings,
    Share,
    TrackingSettings,
)
from .strict_model import LocalPath, StrictModel, accepted_part


def _absolute_term(reference: str) -> str:
    file, mark, function = reference.rpartition(":")
    return f"{Path(file).absolute()}{mark}{function}" if file.endswith(".py") else reference


TermReference = Annotated[str, LocalPath(_absolute_term)]


class CurateSettings(StrictModel):
    """Settings of curation: the candidate tasks and the rules for keeping them.

    Attributes:
        candidates: Number of candidate train tasks.
        known: Number of further train tasks whose answers the weak policy knows; they are no
            candidates.
        weak: Weak policy: ``thumbnail``, or any name that `load_policy` accepts.
        strong: Strong policy: ``teacher``, or any name that `load_policy` accepts.
        weak_samples: Samples of the weak policy per task; its pass rate decides the difficulty.
        strong_samples: Samples of the strong policy per task; a task with none right is unsolvable.
        easy_above: Pass rate from which a task is easy.
        hard_below: Pass rate up to which a task is hard.
        trivial_share: Largest share of the kept tasks that the weak policy always gets right.
        easy_tool_share: Share of the easy tasks that are demonstrated with tools: imperfect on
            purpose, so that reinforcement learning has something to learn.
        medium_tool_share: Share of the medium tasks that are demonstrated with tools.
        hard_tool_share: Share of the hard tasks that are demonstrated with tools.
        near_duplicate_bits: Largest Hamming distance of the perceptual hashes (256 bits) of two
            tasks with the same question and answer that count as duplicates.
        loose_share: Share of the teacher's episodes with a program that fails on fine detail.
        wander_share: Share of the teacher's episodes that begin with a crop that does not help.
        max_turns: Largest number of turns per episode.
    """

    candidates: Count = 2000
    known: Count = 2000
    weak: ModelName = "thumbnail"
    strong: ModelName = "teacher"
    weak_samples: Count = 4
    strong_samples: Count = 1
    easy_above: Share = 0.75
    hard_below: Share = 0.25
    trivial_share: Share = 0.25
    easy_tool_share: Share = 0.5
    medium_tool_share: Share = 0.7
    hard_tool_share: Share = 0.8
    near_duplicate_bits: Annotated[int, Field(ge=0, le=256)] = 6
    loose_share: Share = 0.2
    wander_share: Share = 0.1
    max_turns: Count = 6


class NanoSettings(StrictModel):
    """Sizes of the embedded model, used where ``sft.base`` is ``nano``."""

    width: Count = 128
    text_layers: Count = 4
    vision_width: Count = 128
    vision_layers: Count = 2
    heads: Count = 4
    picture_side: Count = 112
    vocabulary: Count = 1024


class HoldingSettings(StrictModel):
    """Precision, memory and adapter settings of a training; see `TrainingSetup` for each field."""

    bf16: bool = False
    gradient_checkpointing: bool = False
    lora_r: Annotated[int, Field(ge=0)] = 0
    lora_alpha: Count = 32
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    lora_target_modules: str = ""
    merge_lora: bool = True
    fsdp: bool = False


class SFTSettings(HoldingSettings):
    """Settings of the cold start, supervised learning on the curated demonstrations.

    `SFTConfig` documents the fields that are not listed here.

    Attributes:
        base: Base model: ``nano`` builds the embedded model from random weights; a folder or hub
            id is loaded.
        nano: Sizes of the embedded model.
        shown_directly: Families whose demonstrations use no tool: code that the policy later
            writes for them is its own discovery.
        easy_alone: Families of which only easy tasks are demonstrated, without a tool: the policy
            has to discover by itself that the others need code.
    """

    base: ModelName = "nano"
    nano: NanoSettings = NanoSettings()
    shown_directly: tuple[str, ...] = ()
    easy_alone: tuple[str, ...] = ()
    steps: Count = 800
    batch_size: Count = 32
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    muon_factor: Annotated[float, Field(ge=0.0)] = 0.0
    answer_weight: Annotated[float, Field(gt=0.0)] = 1.0
    group_by_length: bool = False
    packing: bool = False
    max_tokens_per_micro_batch: Count = 4096
    save_every: Count = 50


class GRPOSettings(HoldingSettings):
    """Settings of reinforcement learning on the curated tasks; `GRPOConfig` documents each field.

    Attributes:
        without_families: Families that are left out of the tasks, to measure generalization.
        teacher: Folder or hub id, or ``nano``; None for none.
    """

    without_families: tuple[str, ...] = ()
    steps: Count = 60
    tasks_per_step: Count = 10
    num_generations: Annotated[int, Field(ge=2)] = 8
    num_iterations: Count = 1
    learning_rate: Annotated[float, Field(gt=0.0)] = 5e-5
    epsilon: Annotated[float, Field(gt=0.0)] = 0.2
    epsilon_high: Annotated[float, Field(gt=0.0)] = 0.28
    beta: Annotated[float, Field(ge=0.0)] = 0.0
    use_bias_correction_kl: bool = True
    loss_type: Literal["dapo", "bnpo", "grpo", "dr_grpo", "cispo"] = "dapo"
    importance_sampling_level: Literal["token", "sequence"] = "token"
    clip_cov_ratio: Share = 0.0
    clip_cov_lb: float = 1.0
    clip_cov_ub: float = 5.0
    vllm_importance_sampling_correction: bool = True
    vllm_importance_sampling_mode: ImportanceSamplingMode = "token_truncate"
    vllm_importance_sampling_clip_max: Annotated[float, Field(ge=0.0)] | None = 3.0
    vllm_importance_sampling_clip_min: Annotated[float, Field(ge=0.0)] | None = None
    off_policy_mask_threshold: Annotated[float, Field(gt=0.0)] | None = None
    max_completion_length: Annotated[int, Field(ge=0)] = 0
    scale_rewards: Literal["floor", "group", "none"] = "floor"
    std_floor: Annotated[float, Field(gt=0.0)] = 0.5
    reward_weight: Limit = 1.0
    teacher: ModelName | None = None
    distillation_weight: Limit = 0.0
    lr_scheduler_type: Literal["constant", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    max_staleness: Annotated[int, Field(ge=0)] = 0
    max_redraws: Annotated[int, Field(ge=0)] = 1
    easy_share: Share | None = None
    curriculum: Literal["none", "learnability"] = "none"
    max_tokens_per_micro_batch: Count = 4096
    reward: Literal["outcome", "tool_bonus", "bat_sequence", "bat", "bat_paper"] = "bat"
    reward_terms: dict[TermReference, float] = Field(default_factory=dict[str, float])
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    top_p: Annotated[float, Field(ge=1.0, le=1.0)] = 1.0  # see `GRPOConfig`: others are refused
    top_k: Literal[0] = 0
    stop: tuple[str, ...] = ()
    max_tokens: Count = 16_384
    max_turns: Count = 6
    overlong_buffer: Annotated[int, Field(ge=0)] = 0
    save_every: Count = 10
    rollout_batch_size: Count = 128
    deterministic: bool | None = None

    @model_validator(mode="after")
    def _weights_are_bounded(self) -> Self:
        """Refuse contradictory bounds of importance weights, and of the weights' age."""
        correction_of(self)
        if self.max_staleness and self.deterministic:
            raise ValueError(f"deterministic needs max_staleness 0, got {self.max_staleness}")
        return self

    @field_validator("reward_terms")
    @classmethod
    def _terms_are_known(cls, terms: dict[str, float]) -> dict[str, float]:
        """Refuse an unknown term when the settings are read, before any stage runs."""
        from ...envs.rewards.registry import with_terms

        with_terms("outcome", terms)
        return terms


class EvaluateSettings(StrictModel):
    """Settings of the evaluation on the held-out split, greedy and sampled.

    Attributes:
        limit: Number of tasks, spread evenly over the split.
        samples: Sampled trajectories per task.
        temperature: Temperature of the sampled trajectories.
        max_turns: Largest number of turns per episode.
        batch_size: Conversations per batch.
        traces: Trajectories per policy and mode that are sent to MLflow as traces.
    """

    limit: Count = 500
    samples: Count = 1
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    max_turns: Count = 6
    batch_size: Count = 64
    traces: Annotated[int, Field(ge=0)] = 12


class Preset(StrictModel):
    """All parameters of a pipeline run except its seed.

    ``interface`` is the policy's tool: ``code``, ``box`` (a crop of the image) or ``text`` (none).
    Where it is ``code``, a model that was trained with another interface is evaluated with that
    one. ``alarms``, ``server``, ``rollout`` and ``tracking`` say how, not what: changing them
    reruns no stage.
    """

    suite: str = "nano"
    interface: Interface = "code"
    max_new_tokens: Count = 160
    curate: CurateSettings = CurateSettings()
    sft: SFTSettings = SFTSettings()
    grpo: GRPOSettings = GRPOSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    sandbox: SandboxSettings = SandboxSettings()
    alarms: AlarmSettings = AlarmSettings()
    server: ServerSettings = ServerSettings()
    rollout: RolloutSettings = RolloutSettings()
    tracking: TrackingSettings = TrackingSettings()

    def with_backend(self, backend: str) -> Preset:
        """Return the same parameters with another sandbox backend.

        Raises:
            ValueError: There is no such backend.
        """
        if backend not in (known := get_args(Backend)):
            raise ValueError(f"there is no sandbox {backend!r}, only {', '.join(known)}")
        sandbox = self.sandbox.model_copy(update={"backend": backend})
        return self.model_copy(update={"sandbox": sandbox})


@cache
def preset_model() -> type[Preset]:
    """Return the model of a preset, with the sections of other packages' stages.

    Raises:
        StageLoadError: A stage of another package cannot be loaded.
    """
    added: dict[str, Any] = {name: (model, model()) for name, model in added_settings().items()}
    return create_model("Preset", __base__=Preset, **added) if added else Preset


def fitting_presets(presets: Mapping[str, Any]) -> dict[str, Any]:
    """Return the packaged presets without values that a replaced section does not take.

    They are written for our own stages; where another package replaces one, only the keys that its
    settings share with ours keep their values.

    Raises:
        StageLoadError: A stage of another package cannot be loaded.
    """
    replaced = {name: model for name, model in added_settings().items() if name in BUILT_IN}

    def fitting(name: str, section: Any) -> Any:  # noqa: ANN401 - trees of YAML
        is_other = name in replaced and isinstance(section, Mapping)
        return accepted_part(replaced[name], section) if is_other else section

    return {
        preset: {name: fitting(name, section) for name, section in sections.items()}
        for preset, sections in presets.items()
    }
