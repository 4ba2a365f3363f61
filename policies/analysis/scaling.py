"""Test-time scaling: accuracy and tokens with more turns, more samples or a second look.

Every trajectory is run once and counted in all settings that it fits: a majority of k uses the
first k samples of each task. Tokens are the policy's own; for a policy without tokens, words.

A second look is a self-check: the policy is asked again with its first answer in the question.
If both looks agree, the answer is kept. If they differ, the second counts if it is informative
("unknown" is not) and has at least as much evidence: an answer with evidence from the image
(`record_evidence`) is not overruled by one without. A policy that is right because it looked
therefore keeps its answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...envs.grading import grade
from ...envs.rewards.evidence import record_evidence
from ...envs.types import Task, Trajectory
from ...sandbox.types import Sandbox
from ..interface import Policy, Sampling
from ..rollouts.losses import Losses
from ..rollouts.runner import OnLost, rollout
from ..second_look import second_look

_SAYS_NOTHING = frozenset(
    {
        "",
        "?",
        "n/a",
        "unknown",
        "not sure",
        "i don't know",
        "i do not know",
        "cannot tell",
        "can't tell",
    }
)
"""Answers without information, in lower case and without a full stop."""


@dataclass(frozen=True, slots=True)
class ScalingPoint:
    """One setting.

    Attributes:
        method: ``turns``, ``majority`` or ``second look``.
        amount: Number of turns, samples, or looks.
        accuracy: Accuracy over the tasks that our infrastructure did not lose; None where it lost
            them all.
        tokens: Own tokens per task; None where all were lost.
        tasks: Number of tasks that were not lost.
    """

    method: str
    amount: int
    accuracy: float | None
    tokens: float | None
    tasks: int


def scale(  # noqa: PLR0913 - keyword-only settings of one measurement
    policy: Policy,
    tasks: Sequence[Task],
    *,
    sandbox: Sandbox,
    turns: Sequence[int] = (1, 2, 4, 6),
    samples: Sequence[int] = (1, 2, 4, 8),
    seed: int = 0,
    on_lost: OnLost | None = None,
) -> list[ScalingPoint]:
    """Measure each setting on the same tasks.

    Args:
        policy: Policy to measure.
        tasks: Held-out tasks.
        sandbox: Sandbox in which its code runs.
        turns: Turn limits to measure, greedy; both looks of a second look have the largest.
        samples: Sizes of a majority vote to measure, drawn at temperature 1.
        seed: Random seed of all draws.
        on_lost: Called with the reason for each episode that infrastructure lost.

    Raises:
        EpisodesLostError: Infrastructure lost all or most episodes of a setting.
    """
    greedy = Sampling(temperature=0.0)

    def play(
        some: Sequence[Task], *, sampling: Sampling, max_turns: int, samples: int = 1
    ) -> list[Trajectory]:
        losses = Losses(on_lost)
        found = rollout(
            policy,
            some,
            sandbox=sandbox,
            samples=samples,
            seed=seed,
            sampling=sampling,
            max_turns=max_turns,
            evidence=False,
            on_lost=losses,
        )
        losses.check(len(found))
        return found

    once = {limit: play(tasks, sampling=greedy, max_turns=limit) for limit in turns}
    points = [
        _point("turns", limit, tasks, [_Outcome.of_votes([one]) for one in played])
        for limit, played in once.items()
    ]
    most = max(samples)
    drawn = play(tasks, samples=most, sampling=Sampling(), max_turns=max(turns))
    for count in samples:
        votes = [drawn[place * most :][:count] for place in range(len(tasks))]
        points.append(_point("majority", count, tasks, [_Outcome.of_votes(one) for one in votes]))
    firsts = once[max(turns)]
    again = [_asked_again(task, one) for task, one in zip(tasks, firsts, strict=True)]
    seconds = play(again, sampling=greedy, max_turns=max(turns))
    pairs = zip(firsts, seconds, strict=True)
    looks = [_Outcome.of_looks(first, second, sandbox) for first, second in pairs]
    return [*points, _point("second look", 2, tasks, looks)]


def self_checked(first: Trajectory, second: Trajectory, sandbox: Sandbox) -> Trajectory:
    """Return the look whose answer counts; if they differ, evidence is recorded by replay.

    The second counts if it is informative and the first is not, or if it has at least as much
    evidence: with evidence, or where neither has any. The result can be lost, if a replay was.
    """
    if _plain(first.answer) == _plain(second.answer) or _says_nothing(second.answer):
        return first
    if _says_nothing(first.answer):
        return second
    one, other = (record_evidence(look, look.images, sandbox) for look in (first, second))
    if not (one.is_valid and other.is_valid):
        return other if one.is_valid else one
    return one if _is_founded(one) and not _is_founded(other) else other


def majority(answers: Sequence[str | None]) -> str | None:
    """Return the most common answer, the earliest of equals; None where nothing was answered.

    >>> majority(["4", None, "5", " 5"])
    '5'
    """
    plain = [_plain(answer) for answer in answers if answer is not None]
    if not plain:
        return None
    counts = Counter(plain)
    return max(plain, key=lambda answer: (counts[answer], -plain.index(answer)))


def own_tokens(trajectory: Trajectory) -> int:
    """Return the number of tokens that the policy wrote; of words, where it has no tokens."""
    if trajectory.tokens is not None:
        return sum(trajectory.tokens.mask)
    return sum(len(turn.text.split()) for turn in trajectory.turns)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Outcome of a task in one setting: the final answer, and the tokens used."""

    answer: str | None
    tokens: int

    @classmethod
    def of_votes(cls, group: Sequence[Trajectory]) -> _Outcome | None:
        """Take the majority of the trajectories that were not lost; None where all were."""
        valid = [one for one in group if one.is_valid]
        if not valid:
            return None
        answers = [one.answer for one in valid]
        winner = majority(answers)
        chosen = next((a for a in answers if a is not None and _plain(a) == winner), None)
        return cls(chosen, sum(map(own_tokens, valid)))  # in its original form: graders read case

    @classmethod
    def of_looks(cls, first: Trajectory, second: Trajectory, sandbox: Sandbox) -> _Outcome | None:
        """Compare both looks; None where either was lost: nothing was checked."""
        if not (first.is_valid and second.is_valid):
            return None
        found = self_checked(first, second, sandbox)
        if not found.is_valid:
            return None
        return cls(found.answer, own_tokens(first) + own_tokens(second))


def _point(
    method: str, amount: int, tasks: Sequence[Task], outcomes: Sequence[_Outcome | None]
) -> ScalingPoint:
    known = [(task, one) for task, one in zip(tasks, outcomes, strict=True) if one is not None]
    if not known:
        return ScalingPoint(method, amount, None, None, 0)
    right = sum(grade(task, one.answer) for task, one in known)
    tokens = sum(one.tokens for _, one in known)
    return ScalingPoint(method, amount, right / len(known), tokens / len(known), len(known))


def _asked_again(task: Task, first: Trajectory) -> Task:
    """Return the task with the second look's question; unchanged where there was no answer."""
    if first.answer is None:
        return task
    return replace(task, question=second_look(task.question, first.answer))


def _is_founded(look: Trajectory) -> bool:
    """Return whether some call brought evidence from the image."""
    return any(turn.has_evidence for turn in look.turns)


def _says_nothing(answer: str | None) -> bool:
    return _plain(answer).rstrip(".!") in _SAYS_NOTHING


def _plain(answer: str | None) -> str:
    return "" if answer is None else " ".join(answer.split()).casefold()
