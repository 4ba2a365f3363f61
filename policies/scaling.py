"""Test-time scaling: what more turns, more samples or a second look buy, in accuracy and tokens.

Every trajectory is played once and counted in all settings that it fits: a majority of k takes the
first k samples of each task. Tokens are the policy's own; for a policy without tokens, words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..envs.grading import grade
from ..envs.types import Task, Trajectory
from ..sandbox import Sandbox
from .interface import Policy, Sampling
from .rollouts import rollout

SECOND_LOOK = "{question}\nA first look gave: {answer}. Look again and answer."


@dataclass(frozen=True, slots=True)
class ScalingPoint:
    """One setting.

    Attributes:
        method: ``turns``, ``majority`` or ``second look``.
        amount: Turns, samples, or looks.
        accuracy: Share right, of the tasks that our infrastructure did not lose.
        tokens: Own tokens a task.
        tasks: How many.
    """

    method: str
    amount: int
    accuracy: float
    tokens: float
    tasks: int


def scale(
    policy: Policy,
    tasks: Sequence[Task],
    *,
    sandbox: Sandbox,
    turns: Sequence[int] = (1, 2, 4, 6),
    samples: Sequence[int] = (1, 2, 4, 8),
    seed: int = 0,
) -> list[ScalingPoint]:
    """Measure each setting on the same tasks.

    Args:
        policy: Who acts.
        tasks: Held-out ones.
        sandbox: Where its code runs.
        turns: Limits to try, greedy.
        samples: Sizes of a majority vote to try, drawn at temperature 1.
        seed: Of all draws.
    """
    greedy = Sampling(temperature=0.0)

    def play(some: Sequence[Task], sampling: Sampling, count: int, limit: int) -> list[Trajectory]:
        return rollout(
            policy,
            some,
            sandbox=sandbox,
            samples=count,
            seed=seed,
            sampling=sampling,
            max_turns=limit,
            evidence=False,
        )

    points: list[ScalingPoint] = []
    firsts: list[Trajectory] = []
    for limit in turns:
        firsts = play(tasks, greedy, 1, limit)
        points.append(_point("turns", limit, tasks, [[one] for one in firsts], _last))
    drawn = play(tasks, Sampling(), max(samples), max(turns))
    for count in samples:
        groups = [drawn[n * max(samples) :][:count] for n in range(len(tasks))]
        points.append(_point("majority", count, tasks, groups, majority))
    again = [
        replace(task, question=SECOND_LOOK.format(question=task.question, answer=one.answer))
        if one.answer is not None
        else task
        for task, one in zip(tasks, firsts, strict=True)
    ]
    looks = zip(firsts, play(again, greedy, 1, max(turns)), strict=True)
    points.append(_point("second look", 2, tasks, [list(pair) for pair in looks], _last))
    return points


def majority(answers: Sequence[str | None]) -> str | None:
    """Give the commonest answer, the earlier one of equals; None where nothing was answered.

    >>> majority(["4", None, "5", " 5"])
    '5'
    """
    plain = [" ".join(answer.split()).casefold() for answer in answers if answer is not None]
    if not plain:
        return None
    counts = Counter(plain)
    return max(plain, key=lambda answer: (counts[answer], -plain.index(answer)))


def own_tokens(trajectory: Trajectory) -> int:
    """Give how many tokens the policy wrote; words, where it has no tokens."""
    if trajectory.tokens is not None:
        return sum(trajectory.tokens.mask)
    return sum(len(turn.text.split()) for turn in trajectory.turns)


Choose = Callable[[Sequence[str | None]], str | None]


def _last(answers: Sequence[str | None]) -> str | None:
    """Give the last answer that was given."""
    given = [answer for answer in answers if answer is not None]
    return given[-1] if given else None


def _point(
    method: str,
    amount: int,
    tasks: Sequence[Task],
    groups: Sequence[Sequence[Trajectory]],
    choose: Choose,
) -> ScalingPoint:
    right: list[float] = []
    tokens: list[int] = []
    for task, group in zip(tasks, groups, strict=True):
        valid = [one for one in group if one.is_valid]
        if valid:
            right.append(grade(task, choose([one.answer for one in valid])))
            tokens.append(sum(own_tokens(one) for one in valid))
    count = max(1, len(right))
    return ScalingPoint(method, amount, sum(right) / count, sum(tokens) / count, len(right))
