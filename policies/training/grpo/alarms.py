"""Alarms about failing training, derived from step metrics.

Step metrics are the only input: no clock, no store, no torch. An alarm is raised once, when its
condition begins, and can be raised again after the condition has ended. Means are over the last
``window`` steps; they are compared with the mean of the first ``window`` steps, or with the best
mean so far where a metric is expected only to rise.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields

from ....envs.rewards.presets import RewardPreset


@dataclass(frozen=True, slots=True)
class AlarmConfig:
    """Alarm thresholds; a threshold of 0 switches its alarm off (``_drop``, ``_share``, …).

    Attributes:
        window: Steps per mean.
        tool_calls_share: Share of the initial tool calls per episode; alarm at or below it.
        constant_steps: Steps in which a reward term was the same for every trajectory, or in which
            all siblings of every group earned the same.
        success_drop: Drop of the share of calls that ran without error below its best mean.
        accuracy_drop: Drop of the accuracy while sampling below its best mean.
        entropy_share: Share of the initial entropy; alarm at or below it.
        infrastructure_share: Share of episodes lost to our infrastructure; alarm above it.
        session_loss_share: Share of episodes whose code lost a session, also where the episode
            went on; alarm above it.
        logp_drift: Largest difference between a sampled token's log-probability in the engine and
            in the trainer; alarm above it.
        logp_mean: Mean of these differences; alarm above it.
        limited_share: Share of tokens whose importance weight was bounded or masked; alarm above
            it.
        effective_share: Effective sample size as a share of the tokens; alarm below it.
    """

    window: int = 10
    tool_calls_share: float = 0.25
    constant_steps: int = 10
    success_drop: float = 0.1
    accuracy_drop: float = 0.25
    entropy_share: float = 0.1
    infrastructure_share: float = 0.05
    session_loss_share: float = 0.02
    logp_drift: float = 0.05
    logp_mean: float = 0.05
    limited_share: float = 0.05
    effective_share: float = 0.5

    def __post_init__(self) -> None:
        """Reject invalid windows and thresholds."""
        if self.window < 1:
            raise ValueError(f"alarms.window must be at least 1, got {self.window}")
        for one in fields(self):
            if getattr(self, one.name) < 0:
                raise ValueError(
                    f"alarms.{one.name} must be at least 0, got {getattr(self, one.name)}"
                )


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm.

    Attributes:
        name: Kind of alarm, such as ``tool_calls`` or ``constant_term.format``.
        step: Step at which it was raised.
        message: Description with the measured values, and what to check.
    """

    name: str
    step: int
    message: str


LEAST_CALLS = 0.1
"""Tool calls per episode below which a collapse is not reported."""
SAME = 1e-9
"""Standard deviation below which values count as equal."""
_TERM, _MEAN, _STD = "rewards/", "/mean", "/std"
_PENALTIES = frozenset({"format", "tool_turn"})

Found = Iterable[tuple[str, str]]
"""Names and messages of the conditions that currently hold."""


@dataclass(slots=True)
class AlarmBoard:
    """Alarm monitor of one training run.

    Attributes:
        config: Alarm thresholds.
        idle_terms: Terms that are constant by the reward's own rule (`idle_terms`).
    """

    config: AlarmConfig = field(default_factory=AlarmConfig)
    idle_terms: frozenset[str] = frozenset()
    _recent: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])
    _first: dict[str, float] = field(default_factory=dict[str, float])
    _best: dict[str, float] = field(default_factory=dict[str, float])
    _same: defaultdict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))
    _ringing: frozenset[str] = frozenset()

    def observe(self, step: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Process a step's metrics; return the alarms that begin with it."""
        for name, value in metrics.items():
            self._take_in(name, value)
        checks: tuple[Callable[[Mapping[str, float]], Found], ...] = (
            self._calls,
            self._constant,
            self._equal_siblings,
            self._success,
            self._entropy,
            self._infrastructure,
            self._session_losses,
            self._mismatch,
        )
        found = {name: text for check in checks for name, text in check(metrics)}
        begun = [
            Alarm(name, step, text) for name, text in found.items() if name not in self._ringing
        ]
        self._ringing = frozenset(found)
        return begun

    def _take_in(self, name: str, value: float) -> None:
        window = self.config.window
        recent = self._recent.setdefault(name, deque(maxlen=window))
        recent.append(value)
        if len(recent) == window:
            mean = sum(recent) / window
            self._first.setdefault(name, mean)
            self._best[name] = max(mean, self._best.get(name, mean))

    def _mean(self, name: str, metrics: Mapping[str, float]) -> float | None:
        """Return the mean over the last window; None before it is full or without a new value."""
        recent = self._recent.get(name, ())
        if name not in metrics or len(recent) < self.config.window:
            return None
        return sum(recent) / len(recent)

    def _calls(self, metrics: Mapping[str, float]) -> Found:
        name, share = "tool_calls/mean", self.config.tool_calls_share
        mean = self._mean(name, metrics) if share else None
        if mean is None or self._first[name] < LEAST_CALLS or mean > share * self._first[name]:
            return
        yield (
            "tool_calls",
            f"tool calls collapse: {mean:.2f} per episode over the last {self.config.window} "
            f"steps, {self._first[name]:.2f} over the first; check rewards/tool_sequence/mean and "
            "the share of easy tasks",
        )

    def _constant(self, metrics: Mapping[str, float]) -> Found:
        steps = self.config.constant_steps
        for name, spread in metrics.items():
            if not (name.startswith(_TERM) and name.endswith(_STD)):
                continue
            term = name.removeprefix(_TERM).removesuffix(_STD)
            mean = metrics.get(f"{_TERM}{term}{_MEAN}", 0.0)
            is_idle = term in self.idle_terms or (term in _PENALTIES and mean == 0.0)
            self._same[term] = 0 if spread > SAME or is_idle else self._same[term] + 1
            if steps and self._same[term] >= steps:
                yield (
                    f"constant_term.{term}",
                    f"reward term {term} is constant: {mean:.3g} for every trajectory of the last "
                    f"{self._same[term]} steps; nothing can be learnt from it",
                )

    def _equal_siblings(self, metrics: Mapping[str, float]) -> Found:
        """Check the groups: rewards that differ between tasks only vary, and teach nothing."""
        name, steps = "frac_reward_zero_std", self.config.constant_steps
        if name in metrics:
            is_equal = metrics[name] >= 1.0 - SAME
            self._same[name] = self._same[name] + 1 if is_equal else 0
            if steps and self._same[name] >= steps:
                yield (
                    "equal_siblings",
                    f"the siblings of every group earned the same in the last {self._same[name]} "
                    "steps; nothing can be learnt from it: draw more samples per task, or tasks "
                    "of another difficulty",
                )

    def _success(self, metrics: Mapping[str, float]) -> Found:
        watched = (
            ("execution_success", "execution success", self.config.success_drop),
            ("accuracy", "accuracy", self.config.accuracy_drop),
        )
        for name, words, drop in watched:
            mean = self._mean(name, metrics)
            if drop and mean is not None and mean < self._best[name] - drop:
                yield (
                    name,
                    f"{words} drops: {mean:.3f} over the last {self.config.window} steps, "
                    f"{self._best[name]:.3f} at its best; a lower learning rate may help",
                )

    def _entropy(self, metrics: Mapping[str, float]) -> Found:
        name, share = "entropy", self.config.entropy_share
        mean = self._mean(name, metrics) if share else None
        if mean is None or self._first[name] <= 0.0 or mean > share * self._first[name]:
            return
        yield (
            name,
            f"entropy collapses: {mean:.2g} per token over the last {self.config.window} steps, "
            f"{self._first[name]:.2g} over the first; siblings become equal and yield no gradient: "
            "raise epsilon_high, or lower the learning rate",
        )

    def _infrastructure(self, metrics: Mapping[str, float]) -> Found:
        limit = self.config.infrastructure_share
        share, steps = self._share_so_far("infrastructure_share", metrics)
        if limit and share > limit:
            yield (
                "infrastructure",
                f"{share:.1%} of the episodes of the last {steps} steps were lost to our "
                f"infrastructure (limit {limit:.1%}); check the sandbox with `codedance doctor`",
            )

    def _session_losses(self, metrics: Mapping[str, float]) -> Found:
        limit = self.config.session_loss_share
        share, steps = self._share_so_far("session_loss_share", metrics)
        if limit and share > limit:
            yield (
                "session_losses",
                f"in {share:.1%} of the episodes of the last {steps} steps (limit {limit:.1%}) a "
                "session was lost while it ran the policy's code: the policy may be causing it; "
                "compare the tasks and their code (`sessions_lost` in the store), and the machine "
                "with `codedance doctor`",
            )

    def _share_so_far(self, name: str, metrics: Mapping[str, float]) -> tuple[float, int]:
        """Return the mean of the last steps, from the first one on, and their number."""
        recent = self._recent.get(name, ()) if name in metrics else ()
        return (sum(recent) / len(recent) if recent else 0.0), len(recent)

    def _mismatch(self, metrics: Mapping[str, float]) -> Found:
        difference, weight = "sampling_logp_difference", "importance_sampling_ratio"
        watched = (
            ("logp_drift", f"{difference}/max", "differ by up to {:.2g}"),
            ("logp_mean", f"{difference}/mean", "differ by {:.2g} on average"),
            (
                "limited_share",
                f"{weight}/limited_share",
                "differ too much for {:.2g} of the tokens",
            ),
        )
        for name, metric, words in watched:
            value, limit = metrics.get(_newest(metric, metrics), 0.0), getattr(self.config, name)
            if limit and value > limit:
                yield (
                    name,
                    f"log-probabilities of the engine and the trainer {words.format(value)} "
                    f"(limit {limit:.2g}): check for weights that did not follow, caches, and "
                    "precision (`engine/handshake_mean`)",
                )
        share, limit = metrics.get(f"{weight}/effective_share", 1.0), self.config.effective_share
        if share < limit:
            yield (
                "effective_share",
                f"the importance weights leave {share:.2g} of the sampled tokens (limit "
                f"{limit:.2g}): a few tokens decide the update; lower max_staleness, or "
                "vllm_importance_sampling_clip_max",
            )


def _newest(metric: str, metrics: Mapping[str, float]) -> str:
    """Return the name of a difference for tokens of this step's weights, where some are older.

    Older weights are meant to differ; what is off in an engine shows in the newest ones.
    """
    has_older = any(name.startswith("sampled_share/behind_") for name in metrics)
    if not has_older or not metric.startswith("sampling_logp_difference/"):
        return metric
    return metric.replace("difference/", "difference/behind_0/")


def idle_terms(reward: RewardPreset) -> frozenset[str]:
    """Return the terms that are always 0 under a reward."""
    terms = {"tool_sequence"} if reward.sequence == "none" else set[str]()
    if reward.turn_weight == 0.0:
        terms.add("tool_turn")
    return frozenset(terms | {name for name, weight in reward.own_terms if weight == 0.0})
