"""The two scripted policies of curation: a strong one with programs, a weak one without code.

`TeacherPolicy` acts in the environment like any policy, so every tool reply in its trajectories is
genuine. It is imperfect on purpose: some programs are the loose kind that fail on fine detail, some
turns crop an unhelpful region. `WeakPolicy` answers without code from a thumbnail, by its nearest
neighbours among tasks with known answers.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...envs.suites.nano.canvas import COLOURS
from ...envs.suites.nano.reading import CENTRE
from ...envs.suites.nano.suite import family_of
from ...envs.types import Message, Task
from ..interface import Conversation, Demonstration, Reply, Sampling
from .oracle import KNOWN, LOOK, SEEN, UNKNOWN, program_for, question_of, read_answer

THUMBNAIL = 28
"""Side of the weak policy's thumbnail, in pixels."""
NEAR = 100
"""Summed difference of RGB levels below which a thumbnail's pixel counts as a colour."""


@dataclass(frozen=True, slots=True)
class TeacherStyle:
    """Rates of the teacher's imperfections.

    Attributes:
        loose_share: Share of episodes with the loose program, where the family has one.
        wander_share: Share of episodes that begin with a crop of the image's middle.
    """

    loose_share: float = 0.2
    wander_share: float = 0.1


class TeacherPolicy:
    """Acts with the suite's programs, in a style that the episode's seed decides."""

    id = "teacher"

    def __init__(self, style: TeacherStyle | None = None) -> None:
        self._style = style or TeacherStyle()

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Return the next text of each conversation."""
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
        """Return the blocks to run, in order."""
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
    """Return a demonstration that answers without code, as any labelled image set provides it."""
    question = Message("user", (*task.images, task.question))
    answer = Message("assistant", (SEEN.format(answer=task.answer),))
    return Demonstration(task, (question, answer), source="labels", tags=("direct",))


class WeakPolicy:
    """Answers without code, with the answers of known tasks whose thumbnails look alike.

    It considers the colour that the question names, as far as 28 by 28 pixels show it, so it is
    good where the answer is plain and near chance where it depends on detail.

    Args:
        known: Tasks with their answers; they must not overlap with the judged tasks.
        neighbours: Number of nearest neighbours from which an answer is drawn.
    """

    def __init__(self, known: Iterable[Task], *, neighbours: int = 3) -> None:
        self._neighbours = neighbours
        glances: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
        self._answers: dict[str, list[str]] = defaultdict(list)
        for task in known:
            kind = _kind(task.question)
            glances[kind].append(glance(task.images[0], task.question))
            self._answers[kind].append(task.answer)
        self._glances = {kind: np.stack(rows) for kind, rows in glances.items()}

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
        rows = self._glances.get(_kind(question))
        images = [image for message in messages for image in message.images]
        if rows is None or not images:
            return UNKNOWN
        distance = ((rows - glance(images[0], question)) ** 2).sum(1)
        nearest = np.argsort(distance, kind="stable")[: self._neighbours]
        chosen = int(random.Random(seed).choice(nearest.tolist()))
        return SEEN.format(answer=self._answers[_kind(question)][chosen])


def _kind(question: str) -> str:
    """Return the kind of a question: its family, else its own words."""
    family = family_of(question)
    return question if family is None else family.name


def glance(image: Image.Image, question: str) -> NDArray[np.float32]:
    """Return the weak policy's features of an image, ``(152,)``.

    They are the thumbnail's brightness in the region of the named colours, 12 by 12; the shares of
    the palette's colours; and the width, height and share of that region.
    """
    small = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    palette = np.array(list(COLOURS.values()), dtype=np.float32)
    apart = np.abs(pixels[:, :, None] - palette).sum(3)
    owner = np.where(apart.min(2) < NEAR, apart.argmin(2), len(palette))
    shares = np.bincount(owner.reshape(-1), minlength=len(palette) + 1)[:-1] / owner.size
    named = [index for index, name in enumerate(COLOURS) if name in question.casefold()]
    if named:
        shares = np.sort(shares)[::-1]
        mask = (apart[:, :, named] < NEAR).any(2)
    else:
        mask = np.zeros(owner.shape, bool)
    box, extent = (0, 0, THUMBNAIL, THUMBNAIL), np.zeros(3)
    if mask.any():
        rows, columns = np.nonzero(mask)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        sides = ((box[2] - box[0]) / THUMBNAIL, (box[3] - box[1]) / THUMBNAIL)
        extent = np.array([*sides, mask.mean()])
    part = small.convert("L").crop(box).resize((12, 12), Image.Resampling.BILINEAR)
    brightness = np.asarray(part, dtype=np.float32).reshape(-1) / 255.0
    features = [brightness - brightness.mean(), 12 * shares, 12 * extent]
    return np.concatenate(features).astype(np.float32)
