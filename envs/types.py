"""The nouns of an episode: task, message, action, turn, trajectory. Frozen values, no handles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from PIL import Image

from ..sandbox import Execution
from .text.unicode_text import escape_surrogates

Part = str | Image.Image
"""A piece of a message: text that is only text, or a picture."""


class Difficulty(StrEnum):
    """How hard a task is; by construction in a suite, by pass rate once curated."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


class Ending(StrEnum):
    """Why an episode is over."""

    ANSWERED = "answered"
    TURN_LIMIT = "turn_limit"
    TOKEN_LIMIT = "token_limit"
    MALFORMED = "malformed"
    INFRASTRUCTURE = "infrastructure"


class AnswerKind(StrEnum):
    """Which grader judges an answer."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    CHOICE = "choice"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A question about pictures, with its answer, which never enters sandbox or observation.

    Attributes:
        id: Unique over suites, such as ``nano/bars/test/hard/17``.
        suite: Name under which `load_suite` finds it.
        family: Kind of question within the suite.
        split: ``train`` or ``test``.
        question: What the policy is asked.
        images: Pictures, RGB.
        answer: The true answer, as text.
        answer_kind: Which grader judges it.
        tolerance: Largest relative error that a NUMBER may have; 0.0 is exact.
        choices: Options of a CHOICE, in order; empty otherwise.
        difficulty: Band.
        pass_rate: Share of a weak policy's samples that were right, from curation; None unknown.
        needs_picture: False where the true answer does not depend on the picture
            (``evidence: any``).
        provenance: Where it came from (generator version, seed, source file, licence).

    Lone surrogates in any of its texts are written as escapes (`escape_surrogates`), so that no
    tokenizer, request or file fails on a task that others are played beside.
    """

    id: str
    suite: str
    family: str
    split: Literal["train", "test"]
    question: str
    images: tuple[Image.Image, ...]
    answer: str
    answer_kind: AnswerKind = AnswerKind.TEXT
    tolerance: float = 0.0
    choices: tuple[str, ...] = ()
    difficulty: Difficulty = Difficulty.MEDIUM
    pass_rate: float | None = None
    needs_picture: bool = True
    provenance: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        """Escape lone surrogates."""
        for name in ("id", "suite", "family", "question", "answer"):
            object.__setattr__(self, name, _escaped(getattr(self, name)))
        object.__setattr__(self, "choices", tuple(_escaped(choice) for choice in self.choices))
        known = {_escaped(name): _escaped(value) for name, value in self.provenance.items()}
        object.__setattr__(self, "provenance", known)


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One message of a conversation; text and pictures in the order in which they are read."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts, joined by line ends."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The pictures, in order."""
        return tuple(part for part in self.parts if not isinstance(part, str))

    def as_chat(self) -> dict[str, Any]:
        """Return the chat form that trainers read: role and a list of typed content parts."""
        content: list[dict[str, Any]] = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image", "image": part}
            for part in self.parts
        ]
        return {"role": self.role, "content": content}


@dataclass(frozen=True, slots=True)
class Action:
    """What a policy's text asks for: exactly one of code, answer, or a malformed turn.

    Attributes:
        kind: Which of the three.
        content: The code, the answer, or why the turn is malformed.
        format_fault: What is wrong with the text's form; None when it is clean.
    """

    kind: Literal["code", "answer", "malformed"]
    content: str
    format_fault: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One exchange: the policy's text, what it asked for, and what came back.

    Attributes:
        text: The policy's text, as it wrote it.
        action: What the parser read in it.
        execution: What the sandbox recorded; None where no code ran.
        reply: What the environment said back; None on the last turn.
        has_evidence: Whether the block's output was new and depends on the picture; None where
            that was not asked (DESIGN section 5, evidence).
        generation_seconds: How long the episode waited for the text, on the wall: from asking the
            policy until it had given it, which for policies asked in batches is the batch's time.
            None where nobody measured. It decides nothing: no digest and no reward reads it.
    """

    text: str
    action: Action
    execution: Execution | None = None
    reply: Message | None = None
    has_evidence: bool | None = None
    generation_seconds: float | None = None

    @property
    def is_tool_turn(self) -> bool:
        """Whether code ran in this turn."""
        return self.execution is not None

    @property
    def has_failed(self) -> bool:
        """Whether code ran and did not end OK."""
        return self.execution is not None and not self.execution.is_ok


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token ids of an episode exactly as they were generated; never made again from text.

    Attributes:
        ids: The whole episode, prompt and tool replies included, ``(length,)``.
        log_probabilities: Of each id when the policy sampled it, 0.0 elsewhere, ``(length,)``.
        turn_of: Which turn (0, 1, …) the policy wrote the id in; −1 for ids that are not its own,
            ``(length,)``.
        images: How many pictures the ids refer to.
    """

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    turn_of: tuple[int, ...]
    images: int = 0

    @property
    def mask(self) -> tuple[bool, ...]:
        """Which ids are the policy's own, ``(length,)``."""
        return tuple(turn >= 0 for turn in self.turn_of)


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One episode of one policy on one task, from the first message to the ending.

    Attributes:
        task_id: `Task.id`.
        policy_id: Who acted.
        seed: Seed of this episode (sampling and session).
        opening: What the policy was first told: system message (if any) and question.
        turns: In order.
        ending: Why it is over.
        accuracy: 1.0 right, 0.0 wrong, None not scored (infrastructure, judge failed).
        answer: What it answered; None without an answer.
        reward_terms: Named terms once scored within a group; empty before.
        tokens: Exact token ids; None for policies without tokens.
        needs_picture: `Task.needs_picture`, which the evidence rule reads.
        pass_rate: `Task.pass_rate`, μ where there is no group.
    """

    task_id: str
    policy_id: str
    seed: int
    opening: tuple[Message, ...]
    turns: tuple[Turn, ...]
    ending: Ending
    accuracy: float | None
    answer: str | None = None
    reward_terms: Mapping[str, float | None] = field(default_factory=dict[str, "float | None"])
    tokens: Tokens | None = None
    needs_picture: bool = True
    pass_rate: float | None = None

    @property
    def is_valid(self) -> bool:
        """False when our infrastructure failed: masked from loss and statistics."""
        return self.ending is not Ending.INFRASTRUCTURE

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The question's pictures, as policy and code saw them."""
        return tuple(image for message in self.opening for image in message.images)

    @property
    def tool_turns(self) -> tuple[Turn, ...]:
        """The turns in which code ran, in order."""
        return tuple(turn for turn in self.turns if turn.is_tool_turn)

    @property
    def reward(self) -> float | None:
        """Sum of the reward terms; None where it is not scored."""
        if not self.reward_terms:
            return None
        values = list(self.reward_terms.values())
        return None if any(v is None for v in values) else sum(v for v in values if v is not None)

    def conversation(self) -> list[Message]:
        """Return every message in order, the policy's own texts as assistant messages."""
        messages = list(self.opening)
        for turn in self.turns:
            messages.append(Message("assistant", (turn.text,)))
            if turn.reply is not None:
                messages.append(turn.reply)
        return messages

    def messages(self) -> list[dict[str, Any]]:
        """Return the chat form (role, content parts) that other trainers read."""
        return [message.as_chat() for message in self.conversation()]


def _escaped(value: Any) -> Any:  # noqa: ANN401 - a user's own suite may give numbers
    return escape_surrogates(value) if isinstance(value, str) else value
