"""Settings of GRPO; names as in TRL where TRL has the setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from ....envs.rewards.presets import RewardPreset
from ....envs.rewards.registry import with_terms
from ...interface import Sampling
from ..training_setup import TrainingSetup
from .correction import Correction, ImportanceSamplingMode, correction_of
from .distillation.settings import check_distillation

LossType = Literal["dapo", "bnpo", "grpo", "dr_grpo", "cispo"]
"""How tokens are weighted in the loss (`token_weights`), and for ``cispo`` the loss itself."""
RatioLevel = Literal["token", "sequence"]
"""Whether a token's ratio is its own or that of its trajectory; see `sequence_log_ratios`."""


@dataclass(frozen=True, slots=True)
class GRPOConfig(TrainingSetup):
    """Settings of GRPO; `TrainingSetup` holds precision, memory and adapters.

    Attributes:
        steps: Number of training steps; each samples a batch of groups and then learns from it.
        tasks_per_step: Groups per step.
        num_generations: Trajectories per group.
        num_iterations: Optimizer updates per step, all on the same trajectories.
        learning_rate: Peak learning rate.
        lr_scheduler_type: ``constant`` (the paper's) or ``cosine``.
        warmup_steps: Steps of the linear rise at the start.
        weight_decay: Weight decay of matrices.
        max_grad_norm: Norm that gradients are clipped to.
        epsilon: Lower clipping range of a token's probability ratio.
        epsilon_high: Upper clipping range of a token's probability ratio; with ``cispo`` the
            largest ratio itself, at least 1 (TRL recommends 5).
        beta: Weight of the KL divergence from the initial weights; above 0.0 a copy of them is in
            memory, unless adapters are trained: then they are the model without its adapters.
        use_bias_correction_kl: Whether the divergence is weighted by the probability ratio, without
            which its gradient is not the divergence's own (arXiv 2512.02556).
        loss_type: ``dapo`` (or ``bnpo``) weights all tokens of a step equally, ``grpo`` all
            trajectories, ``dr_grpo`` gives a token the same weight whatever the step's length.
            ``cispo`` weights log-probabilities by bounded ratios instead of clipping, so that
            every token keeps a gradient (arXiv 2506.13585, eq. 4).
        importance_sampling_level: ``token``, or ``sequence`` for the ratio of a whole trajectory
            (GSPO, arXiv 2507.18071), which wants a far smaller ``epsilon``: 3e-4 in the paper.
        clip_cov_ratio: Share of a step's tokens that get no gradient from rewards, drawn among
            those by which entropy would fall fastest (Clip-Cov, `clip_covariances`): 2e-4 in the
            paper; 0.0 for none.
        clip_cov_lb: Smallest covariance of log-probability and advantage of such a token.
        clip_cov_ub: Largest covariance of such a token.
        vllm_importance_sampling_correction: Whether each token is weighted by π_old / π_engine, the
            trainer's probability over that of the engine which sampled it, whatever engine.
        vllm_importance_sampling_mode: ``token_truncate``, ``token_mask``, ``sequence_truncate`` or
            ``sequence_mask`` (`Correction`).
        vllm_importance_sampling_clip_max: Upper bound of these weights; None for none.
        vllm_importance_sampling_clip_min: Lower bound of these weights; None for none.
        off_policy_mask_threshold: Mean difference of a trajectory's log-probabilities, engine's
            less trainer's, above which its tokens with a negative advantage are left out; None
            leaves none out.
        max_completion_length: Tokens per episode that ``dr_grpo`` divides by; 0 for
            ``max_new_tokens`` times ``max_turns``.
        scale_rewards: ``floor``, ``group`` or ``none`` (`group_advantages`).
        std_floor: Smallest divisor of ``floor``.
        reward_weight: Weight of the rewards' advantages, those of turns included; 0.0 to learn from
            a teacher alone.
        teacher: Folder or hub id of a model whose log-probabilities of the sampled tokens are
            learnt from (on-policy distillation, `distillation_advantages`); None for none. It has
            to share the tokens of the trained model.
        distillation_weight: Weight of log π_teacher − log π, which is added to the advantage of
            each token.
        reward: Preset of the reward, or its name.
        reward_terms: A user's additional reward terms, with their weights (`with_terms`).
        temperature: Sampling temperature, at which tokens are scored too.
        top_p: 1.0: a smaller one, or a ``top_k``, would draw from another distribution than the
            one that is trained.
        top_k: 0, for the same reason.
        stop: Stop texts, for models that do not end their turns themselves.
        max_turns: Turns per episode.
        overlong_buffer: Tokens before the limit of a trajectory's own tokens,
            ``max_completion_length``, in which its length is penalised, from 0 up to -1 at the
            limit and beyond (soft overlong punishment of DAPO, arXiv 2503.14476, eq. 13); 0 for no
            penalty.
        max_new_tokens: Tokens per turn.
        max_tokens: Tokens per episode, prompt and replies included.
        interface: ``code``, ``box`` or ``text``.
        max_staleness: How many steps the weights of a reply may be behind those that learn from it.
            With 0 training waits for all replies of a step, and they for its update; above 0
            those of the next steps are generated meanwhile (`GroupsAhead`).
        max_redraws: Rounds in which groups without advantages (or lost ones) are replaced by groups
            of other tasks (dynamic sampling); 0 for none.
        easy_share: Share of easy tasks among the drawn tasks; None takes the tasks as they are.
            Where hard tasks reward a call many times more than easy ones penalise it, equal
            numbers first train the policy to call everywhere.
        curriculum: ``none`` draws every task once per epoch; ``learnability`` draws tasks more
            often if their groups are likely to hold both right and wrong answers (`Curriculum`).
        seed: Random seed of the task order and of all sampling.
        save_every: Steps between saved states.
        rollout_batch_size: Episodes whose replies are generated concurrently.
        deterministic: Whether a run is reproducible bit for bit; without it no episode waits for
            the slow tool of another. None for whether the model is on a CPU.
        max_tokens_per_micro_batch: Memory bound: padded tokens per forward pass.
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
    importance_sampling_level: RatioLevel = "token"
    clip_cov_ratio: float = 0.0
    clip_cov_lb: float = 1.0
    clip_cov_ub: float = 5.0
    vllm_importance_sampling_correction: bool = True
    vllm_importance_sampling_mode: ImportanceSamplingMode = "token_truncate"
    vllm_importance_sampling_clip_max: float | None = 3.0
    vllm_importance_sampling_clip_min: float | None = None
    off_policy_mask_threshold: float | None = None
    max_completion_length: int = 0
    scale_rewards: Literal["floor", "group", "none"] = "floor"
    std_floor: float = 0.5
    reward_weight: float = 1.0
    teacher: str | None = None
    distillation_weight: float = 0.0
    reward: str | RewardPreset = "bat"
    reward_terms: Mapping[str, float] = field(default_factory=dict[str, float])
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    max_turns: int = 6
    overlong_buffer: int = 0
    max_new_tokens: int = 512
    max_tokens: int = 16_384
    interface: Literal["code", "box", "text"] = "code"
    max_staleness: int = 0
    max_redraws: int = 1
    easy_share: float | None = None
    curriculum: Literal["none", "learnability"] = "none"
    seed: int = 0
    save_every: int = 10
    rollout_batch_size: int = 128
    deterministic: bool | None = None
    max_tokens_per_micro_batch: int = 4096

    def __post_init__(self) -> None:
        """Reject settings under which nothing could be learnt."""
        TrainingSetup.__post_init__(self)
        self.scoring  # noqa: B018 - raises for an unknown preset or term
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
        if self.top_p < 1.0 or self.top_k > 0:
            raise ValueError(
                f"grpo.top_p must be 1.0 and grpo.top_k 0 in training, got {self.top_p} and "
                f"{self.top_k}: tokens outside of them are never drawn, and the gradient would be "
                "that of another policy; lower grpo.temperature instead"
            )
        if self.easy_share is not None and not 0.0 <= self.easy_share <= 1.0:
            raise ValueError(f"grpo.easy_share must be within 0 and 1, got {self.easy_share}")
        self.sampling  # noqa: B018 - raises for invalid sampling parameters
        self.correction  # noqa: B018 - raises for invalid bounds
        self._check_loss()
        check_distillation(self.teacher, self.distillation_weight, self.reward_weight)
        for name in ("max_redraws", "max_staleness"):
            if getattr(self, name) < 0:
                raise ValueError(f"grpo.{name} must be at least 0, got {getattr(self, name)}")
        if self.max_staleness and self.deterministic:
            raise ValueError(
                "grpo.deterministic needs grpo.max_staleness 0, got "
                f"{self.max_staleness}: which weights a reply is sampled from depends on time"
            )

    def _check_loss(self) -> None:
        """Reject settings of the loss that do not fit together."""
        if self.loss_type not in get_args(LossType):
            names = ", ".join(get_args(LossType))
            raise ValueError(f"grpo.loss_type is one of {names}, got {self.loss_type!r}")
        if self.importance_sampling_level not in get_args(RatioLevel):
            levels = ", ".join(get_args(RatioLevel))
            raise ValueError(
                f"grpo.importance_sampling_level is one of {levels}, got "
                f"{self.importance_sampling_level!r}"
            )
        if self.loss_type == "cispo" and self.epsilon_high < 1.0:
            raise ValueError(
                "grpo.epsilon_high is the largest ratio of cispo: at least 1, such as 5.0, got "
                f"{self.epsilon_high}"
            )
        if not (0.0 <= self.clip_cov_ratio <= 1.0 and self.clip_cov_lb < self.clip_cov_ub):
            raise ValueError(
                "grpo.clip_cov_ratio must be within 0 and 1, and clip_cov_lb below clip_cov_ub, "
                f"got {self.clip_cov_ratio}, {self.clip_cov_lb} and {self.clip_cov_ub}"
            )
        if not 0 <= self.overlong_buffer <= self.completion_budget:
            raise ValueError(
                "grpo.overlong_buffer must be within 0 and the limit of a trajectory's own tokens "
                f"({self.completion_budget}), got {self.overlong_buffer}"
            )

    @property
    def scoring(self) -> RewardPreset:
        """Reward preset, own terms included."""
        return with_terms(self.reward, self.reward_terms)

    @property
    def correction(self) -> Correction:
        """Correction of the mismatch between engine and trainer."""
        return correction_of(self)

    @property
    def completion_budget(self) -> int:
        """Divisor of a trajectory's sum under ``dr_grpo``, in tokens."""
        return self.max_completion_length or self.max_new_tokens * self.max_turns

    @property
    def sampling(self) -> Sampling:
        """Sampling parameters."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=self.max_new_tokens,
            max_tokens=self.max_tokens,
            stop=self.stop,
        )
