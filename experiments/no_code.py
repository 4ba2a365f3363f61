"""Baselines without code: the most common answer, a blind model, a model without tools.

Both models are nano models trained from random weights on the suite's questions and answers; the
blind one never sees an image. Where they stay near chance, a task needs code; where the model
without tools is good, code is unnecessary (``docs/suite.md`` has the table).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from codedance.envs.suites.nano.suite import FAMILIES
from codedance.envs.types import Message, Task, Trajectory
from codedance.pipelines.charts.markdown_table import markdown_table
from codedance.policies.interface import Conversation, Demonstration, Policy, Reply, Sampling
from codedance.policies.rollouts.losses import Losses
from codedance.policies.scripted.teacher import direct_demonstration
from codedance.policies.training.sft import SFTConfig, train_sft
from codedance.sandbox.types import Sandbox

MODELS = ("blind", "no tools")
Cell = tuple[str, str]
"""A family and a difficulty."""


@dataclass(frozen=True, slots=True)
class BaselineRow:
    """Shares of right answers on the held-out tasks of one family and difficulty.

    Attributes:
        family: Family of the tasks.
        difficulty: Difficulty by construction.
        count: Number of tasks.
        chance: Share for guessing among the answers of hard tasks.
        majority: Share for always answering with the train split's most common answer.
        models: Share for each trained model, by name; NaN if infrastructure lost every episode.
    """

    family: str
    difficulty: str
    count: int
    chance: float
    majority: float
    models: dict[str, float]

    @property
    def excess(self) -> float:
        """Difference between the best of them and chance, in points."""
        known = [share for share in self.models.values() if not math.isnan(share)]
        return 100 * (max(self.majority, *known) - self.chance)


class BlindPolicy:
    """A policy that receives its conversations without images."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @property
    def id(self) -> str:
        """Id of the policy, marked as blind."""
        return f"blind {self._policy.id}"

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Return the policy's replies to the texts alone."""
        hidden = [
            replace(talk, messages=[without_pictures(message) for message in talk.messages])
            for talk in conversations
        ]
        return self._policy.reply(hidden, sampling=sampling)


def without_pictures(message: Message) -> Message:
    """Return a message with its texts only."""
    return Message(message.role, tuple(part for part in message.parts if isinstance(part, str)))


def train_baselines(
    tasks: Sequence[Task], config: SFTConfig, folder: Path
) -> Iterator[tuple[str, Path]]:
    """Train each model on the tasks' answers; yield its name and checkpoint, one after the other.

    An interrupted run resumes.
    """
    from codedance.policies.models.nano import NanoConfig, build_nano

    seen = [direct_demonstration(task) for task in tasks]
    corpus = [message.text for one in seen for message in one.messages]
    for name in MODELS:
        home = folder / name.replace(" ", "-")
        base = home / "base"
        if not (base / "codedance.json").is_file():
            build_nano(base, corpus, NanoConfig(seed=config.seed))
        shown = [_blinded(one) for one in seen] if name == "blind" else seen
        yield name, train_sft(base, shown, config, folder=home)


def judge(
    policy: Policy, tasks: Sequence[Task], *, sandbox: Sandbox, batch_size: int = 128
) -> list[Trajectory]:
    """Return a policy's greedy answers, in one turn, without tools.

    Raises:
        EpisodesLostError: Infrastructure lost all or most of the episodes.
    """
    from codedance.policies import rollout

    sampling, losses = Sampling(temperature=0.0, max_new_tokens=40), Losses()
    found = rollout(
        policy,
        tasks,
        sandbox=sandbox,
        sampling=sampling,
        interface="text",
        max_turns=1,
        batch_size=batch_size,
        evidence=False,
        on_lost=losses,
    )
    losses.check(len(found), of="episodes of a baseline")
    return found


def tabulate(
    train: Sequence[Task], test: Sequence[Task], answers: dict[str, Sequence[Trajectory]]
) -> list[BaselineRow]:
    """Return one row per family and difficulty of the held-out tasks.

    Args:
        train: Tasks from which the most common answers are taken.
        test: Held-out tasks.
        answers: Trajectories of each model, in the order of ``test``.
    """
    commonest = {cell: _commonest(group) for cell, group in _cells(train).items()}
    right: dict[str, dict[str, float]] = {
        name: {t.task_id: t.accuracy for t in trajectories if t.accuracy is not None}
        for name, trajectories in answers.items()
    }
    return [
        BaselineRow(
            family=family,
            difficulty=difficulty,
            count=len(group),
            chance=FAMILIES[family].chance,
            majority=_mean([float(t.answer == commonest.get((family, difficulty))) for t in group]),
            models={
                name: _mean([right[name][t.id] for t in group if t.id in right[name]])
                for name in answers
            },
        )
        for (family, difficulty), group in sorted(_cells(test).items())
    ]


def as_markdown(rows: Sequence[BaselineRow]) -> str:
    """Return the table as Markdown, shares in per cent."""
    names = list(rows[0].models) if rows else []
    head = ("family", "difficulty", "tasks", "chance", "majority", *names)
    cells = [(row.family, row.difficulty, row.count, *_shares(row)) for row in rows]
    return "\n".join(markdown_table(head, cells)) + "\n"


def _shares(row: BaselineRow) -> list[str]:
    shares = (row.chance, row.majority, *row.models.values())
    return ["-" if math.isnan(share) else f"{100 * share:.0f} %" for share in shares]


def _blinded(one: Demonstration) -> Demonstration:
    return replace(one, messages=tuple(without_pictures(message) for message in one.messages))


def _cells(tasks: Sequence[Task]) -> dict[Cell, list[Task]]:
    cells: defaultdict[Cell, list[Task]] = defaultdict(list)
    for task in tasks:
        cells[task.family, str(task.difficulty)].append(task)
    return dict(cells)


def _commonest(tasks: Sequence[Task]) -> str:
    return Counter(task.answer for task in tasks).most_common(1)[0][0]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
