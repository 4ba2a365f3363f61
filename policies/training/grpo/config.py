"""Settings of GRPO; names as in TRL where TRL has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from ....envs.rewards.presets import RewardPreset
from ....envs.rewards.registry import with_terms
from ...interface import Sampling
from ..training_setup import TrainingSetup

LossType = Literal["dapo", "bnpo", "grpo", "dr_grpo"]
"""How tokens are weighed; `token_weights` says what each does."""


@dataclass(frozen=True, slots=True)
class GRPOConfig(TrainingSetup):
    """How to train by reinforcement; how the model is held says `TrainingSetup`.

    Attributes:
        steps: Batches of groups, each learnt from once it is complete.
        tasks_per_step: Groups a step.
        num_generations: Trajectories a group.
        num_iterations: Updates a step, all on the same trajectories.
        learning_rate: At its highest.
        lr_scheduler_type: ``constant`` (the paper's) or ``cosine``.
        warmup_steps: Linear rise at the start.
        weight_decay: Of matrices.
        max_grad_norm: Gradients are clipped to this norm.
        epsilon: How far a token's probability ratio may fall before its gradient stops.
        epsilon_high: How far it may rise.
        beta: Weight of the KL divergence from the starting weights; 0.0 keeps no copy of them.
        use_bias_correction_kl: Whether the divergence is weighed by the probability ratio, without
            which its gradient is not the divergence's own (arXiv 2512.02556).
        loss_type: ``dapo`` (or ``bnpo``) weighs all tokens of a step alike, ``grpo`` all
            trajectories, ``dr_grpo`` gives a token the same weight whatever the step's length.
        max_completion_length: Tokens of an episode that ``dr_grpo`` divides by; 0 for
            ``max_new_tokens`` times ``max_turns``.
        scale_rewards: ``floor``, ``group`` or ``none`` (`group_advantages`).
        std_floor: Smallest divisor of ``floor``.
        reward: Preset of the reward, or its name.
        reward_terms: A user's own terms besides, with their weights (`with_terms`).
        temperature: Of sampling; log-probabilities are always those at temperature 1.
        top_p: Of sampling.
        top_k: Of sampling; 0 for all.
        stop: Texts that end a turn; for models that do not end their turns themselves.
        max_turns: Turns an episode.
        max_new_tokens: Tokens a turn.
        max_tokens: Tokens an episode, prompt and replies included.
        interface: ``code``, ``box`` or ``text``.
        max_redraws: Rounds in which groups that teach nothing (or were lost) are replaced by
            groups of other tasks (dynamic sampling); 0 for none.
        easy_share: Share of the drawn tasks that are of the easy band; None takes the tasks as
            they are. Where hard tasks reward a call many times more than easy ones charge for
            it, equal numbers teach to call everywhere first.
        curriculum: ``none`` draws every task once an epoch; ``learnability`` draws those more often
            whose groups are likely to hold both right and wrong answers (`Curriculum`).
        seed: Of the order of tasks and of all sampling.
        save_every: Steps between saved states.
        rollout_batch_size: Episodes whose replies are written side by side.
        deterministic: Whether a run can be repeated to the bit; without it no episode waits for
            the slow tool of another.
        max_tokens_per_micro_batch: Memory bound: padded tokens in one forward pass.
    """

    steps: int = 60
    tasks_per_step: int = 10
    num_generations: int = 8
    num_iterations: int = 1
    learning_rate: float = 5e-5
    lr_scheduler_type: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    epsilon: float = 0.2
    epsilon_high: float = 0.28
    beta: float = 0.0
    use_bias_correction_kl: bool = True
    loss_type: LossType = "dapo"
    max_completion_length: int = 0
    scale_rewards: Literal["floor", "group", "none"] = "floor"
    std_floor: float = 0.5
    reward: str | RewardPreset = "bat"
    reward_terms: Mapping[str, float] = field(default_factory=dict[str, float])
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    max_turns: int = 6
    max_new_tokens: int = 512
    max_tokens: int = 16_384
    interface: Literal["code", "box", "text"] = "code"
    max_redraws: int = 1
    easy_share: float | None = None
    curriculum: Literal["none", "learnability"] = "none"
    seed: int = 0
    save_every: int = 10
    rollout_batch_size: int = 128
    deterministic: bool = True
    max_tokens_per_micro_batch: int = 4096

    def __post_init__(self) -> None:
        """Refuse settings under which nothing could be learnt."""
        TrainingSetup.__post_init__(self)
        self.scoring  # noqa: B018 - an unknown preset or term is refused here
        for name in ("steps", "tasks_per_step", "num_iterations", "save_every", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"grpo.{name} must be at least 1, got {getattr(self, name)}")
        if self.num_generations < 2:
            raise ValueError(
                f"grpo.num_generations must be at least 2, got {self.num_generations}: a "
                "trajectory is compared with its siblings"
            )
        if self.temperature <= 0.0:
            raise ValueError(
                f"grpo.temperature must be above 0, got {self.temperature}: greedy siblings are "
                "all alike"
            )
        if self.easy_share is not None and not 0.0 <= self.easy_share <= 1.0:
            raise ValueError(f"grpo.easy_share must be within 0 and 1, got {self.easy_share}")
        self.sampling  # noqa: B018 - refuses what cannot be drawn from
        if self.loss_type not in get_args(LossType):
            names = ", ".join(get_args(LossType))
            raise ValueError(f"grpo.loss_type is one of {names}, got {self.loss_type!r}")
        if self.max_redraws < 0:
            raise ValueError(f"grpo.max_redraws must be at least 0, got {self.max_redraws}")

    @property
    def scoring(self) -> RewardPreset:
        """The reward, own terms included."""
        return with_terms(self.reward, self.reward_terms)

    @property
    def completion_budget(self) -> int:
        """What ``dr_grpo`` divides a trajectory's sum by, tokens."""
        return self.max_completion_length or self.max_new_tokens * self.max_turns

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=self.max_new_tokens,
            max_tokens=self.max_tokens,
            stop=self.stop,
        )
