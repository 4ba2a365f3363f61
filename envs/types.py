"""Data types of an episode: task, message, action, turn, trajectory; frozen, without handles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from PIL import Image

from ..sandbox import Execution
from .text.unicode_text import escape_surrogates

Part = str | Image.Image
"""Part of a message: plain text or an image."""


class Difficulty(StrEnum):
    """Difficulty of a task, by construction in a suite, by pass rate once curated."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


class Ending(StrEnum):
    """Reason for the end of an episode."""

    ANSWERED = "answered"
    TURN_LIMIT = "turn_limit"
    TOKEN_LIMIT = "token_limit"
    MALFORMED = "malformed"
    INFRASTRUCTURE = "infrastructure"


class AnswerKind(StrEnum):
    """Kind of an answer, which determines its grader."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    CHOICE = "choice"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A question about images, with its answer, which never enters sandbox or observation.

    Attributes:
        id: Identifier, unique over suites, such as ``nano/bars/test/hard/17``.
        suite: Name of the suite for `load_suite`.
        family: Kind of question within the suite.
        split: Split, ``train`` or ``test``.
        question: Question to the policy.
        images: Images of the question, RGB.
        answer: True answer, as text.
        answer_kind: Kind of the answer, which determines the grader.
        tolerance: Largest relative error allowed for a NUMBER; 0.0 is exact.
        choices: Options of a CHOICE, in order; empty otherwise.
        difficulty: Difficulty of the task.
        pass_rate: Share of a weak policy's samples that were right, from curation; None where
            unknown.
        needs_picture: False where the true answer does not depend on the image
            (``evidence: any``).
        provenance: Origin of the task (generator version, seed, source file, licence).

    Lone surrogates in its texts are replaced by escapes (`escape_surrogates`), so that no
    tokenizer, request or file fails because of one task among others.
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
        """Replace lone surrogates by escapes."""
        for name in ("id", "suite", "family", "question", "answer"):
            object.__setattr__(self, name, _escaped(getattr(self, name)))
        object.__setattr__(self, "choices", tuple(_escaped(choice) for choice in self.choices))
        known = {_escaped(name): _escaped(value) for name, value in self.provenance.items()}
        object.__setattr__(self, "provenance", known)


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One message of a conversation, with text and images in reading order."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts, joined by line ends."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The images, in order."""
        return tuple(part for part in self.parts if not isinstance(part, str))

    def as_chat(self) -> dict[str, Any]:
        """Return the chat format of trainers: role and a list of typed content parts."""
        content: list[dict[str, Any]] = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image", "image": part}
            for part in self.parts
        ]
        return {"role": self.role, "content": content}


@dataclass(frozen=True, slots=True)
class Action:
    """Action parsed from a policy's text: exactly one of code, answer, or a malformed turn.

    Attributes:
        kind: Kind of the action.
        content: Code, answer, or the reason why the turn is malformed.
        format_fault: Fault in the text's form; None without one.
    """

    kind: Literal["code", "answer", "malformed"]
    content: str
    format_fault: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One exchange: the policy's text, its action, and the reply.

    Attributes:
        text: Text of the policy, unchanged.
        action: Action parsed from the text.
        execution: The sandbox's record of the block; None where no code ran.
        reply: Reply of the environment; None on the last turn.
        has_evidence: Whether the block's output was new and depends on the image; None where
            that was not checked (DESIGN section 5, evidence).
        generation_seconds: Wall-clock time between request and text, in seconds; for policies
            queried in batches that of the batch. None where not measured. Informational only: no
            digest and no reward reads it.
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
class WeightSpan:
    """Ids in a row that one version of the weights sampled.

    Attributes:
        version: Name of the version, as the engine reports it.
        start: Index of the first id.
        end: Index after the last id.
    """

    version: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token ids of an episode exactly as generated; never re-encoded from text.

    Attributes:
        ids: Token ids of the whole episode, including prompt and tool replies, ``(length,)``.
        log_probabilities: Log-probability of each id sampled by the policy, in the distribution
            that it was drawn from (temperature, excluded ids), 0.0 elsewhere, ``(length,)``.
        turn_of: Turn (0, 1, …) in which the policy generated the id; −1 for other ids,
            ``(length,)``.
        images: Number of images that the ids refer to.
        weight_versions: Versions of the weights that the policy's ids were sampled from, in
            order; empty where the engine names none.
    """

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    turn_of: tuple[int, ...]
    images: int = 0
    weight_versions: tuple[WeightSpan, ...] = ()

    @property
    def mask(self) -> tuple[bool, ...]:
        """Completion mask: which ids the policy generated, ``(length,)``."""
        return tuple(turn >= 0 for turn in self.turn_of)


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One episode of one policy on one task, from the first message to the ending.

    Attributes:
        task_id: Identifier of the task, `Task.id`.
        policy_id: Identifier of the policy.
        seed: Random seed of this episode's sampling.
        opening: Opening messages: system message (if any) and question.
        turns: Turns, in order.
        ending: Reason for the end.
        accuracy: 1.0 right, 0.0 wrong, None not scored (infrastructure, judge failed).
        answer: Answer of the policy; None without one.
        reward_terms: Reward terms by name once scored within a group; empty before.
        tokens: Exact token ids; None for policies without tokens.
        needs_picture: Value of `Task.needs_picture`, used by the evidence rule.
        pass_rate: Value of `Task.pass_rate`, μ where there is no group.
        sessions_lost: Number of sessions that were lost while they ran its code, whether the
            episode went on or not; no reward reads it.
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
    sessions_lost: int = 0

    @property
    def is_valid(self) -> bool:
        """False after an infrastructure failure; excluded from loss and statistics."""
        return self.ending is not Ending.INFRASTRUCTURE

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The question's images, as seen by policy and code."""
        return tuple(image for message in self.opening for image in message.images)

    @property
    def tool_turns(self) -> tuple[Turn, ...]:
        """The turns in which code ran, in order."""
        return tuple(turn for turn in self.turns if turn.is_tool_turn)

    @property
    def reward(self) -> float | None:
        """Sum of the reward terms; None where not scored."""
        if not self.reward_terms:
            return None
        values = list(self.reward_terms.values())
        return None if any(v is None for v in values) else sum(v for v in values if v is not None)

    def conversation(self) -> list[Message]:
        """Return all messages in order, with the policy's texts as assistant messages."""
        messages = list(self.opening)
        for turn in self.turns:
            messages.append(Message("assistant", (turn.text,)))
            if turn.reply is not None:
                messages.append(turn.reply)
        return messages

    def messages(self) -> list[dict[str, Any]]:
        """Return the chat format (role, content parts) of other trainers."""
        return [message.as_chat() for message in self.conversation()]


def _escaped(value: Any) -> Any:  # noqa: ANN401 - a user's own suite may hold numbers
    return escape_surrogates(value) if isinstance(value, str) else value
