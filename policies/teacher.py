"""The two scripted policies of curation: a strong one that programs, a weak one that glances.

`TeacherPolicy` acts in the environment like any policy, so every tool reply in its trajectories is
a true one. It is imperfect on purpose: some programs are the loose kind that fail on fine detail,
some turns crop a place that does not help. `WeakPolicy` answers without code from a thumbnail, by
its nearest neighbours among tasks whose answers it knows.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..envs.suites.nano import family_of
from ..envs.suites.nano.reading import CENTRE
from ..envs.types import Message, Task
from .interface import Conversation, Demonstration, Reply, Sampling
from .oracle import KNOWN, LOOK, SEEN, UNKNOWN, program_for, question_of, read_answer

THUMBNAIL = 16
"""Side of what the weak policy sees, pixels."""


@dataclass(frozen=True, slots=True)
class TeacherStyle:
    """How often the teacher is imperfect.

    Attributes:
        loose_share: Episodes with the loose program, where the family has one.
        wander_share: Episodes that begin with a crop of the picture's middle.
    """

    loose_share: float = 0.2
    wander_share: float = 0.1


class TeacherPolicy:
    """Acts by the suite's programs, in a style that the episode's seed decides."""

    id = "teacher"

    def __init__(self, style: TeacherStyle | None = None) -> None:
        self._style = style or TeacherStyle()

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Write the next text of each conversation."""
        del sampling
        return [Reply(self._next(c.messages, c.seed)) for c in conversations]

    def _next(self, messages: Sequence[Message], seed: int) -> str:
        question = question_of(messages)
        plan = self._plan(question, seed)
        done = sum(message.role == "assistant" for message in messages)
        if not plan:
            return UNKNOWN
        if done < len(plan):
            return LOOK.format(code=plan[done])
        return KNOWN.format(answer=read_answer(question, messages[-1]))

    def _plan(self, question: str, seed: int) -> list[str]:
        """Give the blocks to run, in order."""
        exact = program_for(question)
        if exact is None:
            return []
        draw = random.Random(seed)
        is_loose = draw.random() < self._style.loose_share
        is_wandering = draw.random() < self._style.wander_share
        family = family_of(question)
        loose = family.programs(question)["loose"] if family is not None else CENTRE
        if loose == CENTRE:
            return [CENTRE, exact] if is_loose else [exact]
        program = loose if is_loose else exact
        return [CENTRE, program] if is_wandering else [program]


def direct_demonstration(task: Task) -> Demonstration:
    """Give a task's answer at a glance, as any set of labelled pictures would show it."""
    question = Message("user", (*task.images, task.question))
    answer = Message("assistant", (SEEN.format(answer=task.answer),))
    return Demonstration(task, (question, answer), source="labels", tags=("direct",))


class WeakPolicy:
    """Answers at a glance, by the nearest thumbnails among known tasks of the same question.

    Args:
        known: Tasks with their answers; none may be among those that are judged.
        neighbours: From how many nearest ones an answer is drawn.
    """

    def __init__(self, known: Iterable[Task], *, neighbours: int = 3) -> None:
        self._neighbours = neighbours
        pictures: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
        self._answers: dict[str, list[str]] = defaultdict(list)
        for task in known:
            pictures[task.question].append(thumbnail(task.images[0]))
            self._answers[task.question].append(task.answer)
        self._pictures = {question: np.stack(rows) for question, rows in pictures.items()}

    @property
    def id(self) -> str:
        """Name of the policy."""
        return f"thumbnail-{THUMBNAIL}"

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Answer each conversation's question."""
        del sampling
        return [Reply(self._answer(c.messages, c.seed)) for c in conversations]

    def _answer(self, messages: Sequence[Message], seed: int) -> str:
        question = question_of(messages)
        rows = self._pictures.get(question)
        images = [image for message in messages for image in message.images]
        if rows is None or not images:
            return UNKNOWN
        distance = ((rows - thumbnail(images[0])) ** 2).sum(1)
        nearest = np.argsort(distance, kind="stable")[: self._neighbours]
        chosen = int(random.Random(seed).choice(nearest.tolist()))
        return SEEN.format(answer=self._answers[question][chosen])


def thumbnail(image: Image.Image) -> NDArray[np.float32]:
    """Give what the weak policy sees of a picture, ``(side * side * 3,)``, 0 to 1."""
    small = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1) / 255.0
