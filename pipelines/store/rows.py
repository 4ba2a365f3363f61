r"""Conversion of tasks and trajectories to rows and back, without loss.

Text of a model may contain lone surrogates or NUL, which no database accepts: they are stored as
escapes (``\udc80``, ``\x00``).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from PIL import Image

from ...envs.types import (
    Action,
    AnswerKind,
    Difficulty,
    Ending,
    Message,
    Task,
    Tokens,
    Trajectory,
    Turn,
    WeightSpan,
)
from ...sandbox import Execution, Outcome
from .digests import row_digest
from .schema import HANDLED, ExecutionRow, TaskRow, TrajectoryRow, TurnRow

Row = dict[str, Any]
PutImage = Callable[[Image.Image], str]
GetImage = Callable[[str], Image.Image]


_DECIDING = (
    "task_id",
    "suite",
    "family",
    "split",
    "question",
    "images",
    "answer",
    "answer_kind",
    "tolerance",
    "choices",
    "needs_picture",
)
"""Columns of a task that decide what the policy sees and how it is graded."""


@dataclass(frozen=True, slots=True)
class TrajectoryRows:
    """The rows of one trajectory, before it has an id."""

    trajectory: Row
    turns: list[Row]
    executions: list[Row]
    scores: Mapping[str, float | None]


def clean(text: str) -> str:
    """Return the text with lone surrogates and NUL as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def _clean_or_none(text: str | None) -> str | None:
    return None if text is None else clean(text)


def task_row(task: Task, put: PutImage) -> Row:
    """Return a task's row; its key is the digest of what the policy sees and how it is graded."""
    content: Row = {
        "task_id": clean(task.id),
        "suite": clean(task.suite),
        "family": clean(task.family),
        "split": task.split,
        "question": clean(task.question),
        "images": [put(image) for image in task.images],
        "answer": clean(task.answer),
        "answer_kind": str(task.answer_kind),
        "tolerance": float(task.tolerance),
        "choices": [clean(choice) for choice in task.choices],
        "needs_picture": task.needs_picture,
    }
    extra = {"difficulty": str(task.difficulty), "provenance": dict(task.provenance)}
    row = {"key": task_key(content), **content, **extra}
    return {**row, "digest": row_digest(row)}


def task_key(row: Mapping[str, Any]) -> str:
    """Return the key for the content of a task's row."""
    content = {name: row[name] for name in _DECIDING}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_task(row: TaskRow, get: GetImage, *, with_images: bool = True) -> Task:
    """Return the task of a row, with or without its images."""
    images = tuple(get(digest) for digest in row.images) if with_images else ()
    return Task(
        id=row.task_id,
        suite=row.suite,
        family=row.family,
        split="train" if row.split == "train" else "test",
        question=row.question,
        images=images,
        answer=row.answer,
        answer_kind=AnswerKind(row.answer_kind),
        tolerance=row.tolerance,
        choices=tuple(row.choices),
        difficulty=Difficulty(row.difficulty),
        needs_picture=row.needs_picture,
        provenance=row.provenance,
    )


def trajectory_rows(trajectory: Trajectory, put: PutImage) -> TrajectoryRows:
    """Return the rows of a trajectory."""
    tool_turns = trajectory.tool_turns
    head: Row = {
        "policy_id": trajectory.policy_id,
        "seed": trajectory.seed,
        "opening": [_message_row(message, put) for message in trajectory.opening],
        "ending": str(trajectory.ending),
        "accuracy": trajectory.accuracy,
        "answer": _clean_or_none(trajectory.answer),
        "pass_rate": trajectory.pass_rate,
        "tool_calls": len(tool_turns),
        "tool_successes": sum(not turn.has_failed for turn in tool_turns),
        "sessions_lost": trajectory.sessions_lost,
        "tokens": None if trajectory.tokens is None else pack_tokens(trajectory.tokens),
    }
    turns = [_turn_row(n, turn, put) for n, turn in enumerate(trajectory.turns)]
    executions = [
        _execution_row(n, turn.execution, put)
        for n, turn in enumerate(trajectory.turns)
        if turn.execution is not None
    ]
    return TrajectoryRows(head, turns, executions, dict(trajectory.reward_terms))


def read_trajectory(
    row: TrajectoryRow,
    task: TaskRow,
    turns: list[TurnRow],
    executions: Mapping[int, ExecutionRow],
    scores: Mapping[str, float | None],
    get: GetImage,
) -> Trajectory:
    """Return the trajectory of its rows."""
    return Trajectory(
        task_id=task.task_id,
        policy_id=row.policy_id,
        seed=row.seed,
        opening=tuple(_read_message(message, get) for message in row.opening),
        turns=tuple(_read_turn(turn, executions.get(turn.number), get) for turn in turns),
        ending=Ending(row.ending),
        accuracy=row.accuracy,
        answer=row.answer,
        reward_terms=dict(scores),
        tokens=None if row.tokens is None else unpack_tokens(row.tokens),
        needs_picture=task.needs_picture,
        pass_rate=row.pass_rate,
        sessions_lost=row.sessions_lost or 0,
    )


def pack_tokens(tokens: Tokens) -> bytes:
    """Return token ids, log-probabilities (as float32), turn numbers and versions, compressed."""
    size = len(tokens.ids)
    head = np.asarray([size, tokens.images], "<i8").tobytes()
    body = (
        np.asarray(tokens.ids, "<i4").tobytes()
        + np.asarray(tokens.turn_of, "<i2").tobytes()
        + np.asarray(tokens.log_probabilities, "<f4").tobytes()
    )
    spans = [[span.version, span.start, span.end] for span in tokens.weight_versions]
    return head + zlib.compress(body + (json.dumps(spans).encode() if spans else b""), 1)


def unpack_tokens(data: bytes) -> Tokens:
    """Return the tokens that `pack_tokens` packed."""
    size, images = (int(n) for n in np.frombuffer(data[:16], "<i8"))
    body = zlib.decompress(data[16:])
    ids = np.frombuffer(body[: 4 * size], "<i4")
    turn_of = np.frombuffer(body[4 * size : 6 * size], "<i2")
    logs = np.frombuffer(body[6 * size : 10 * size], "<f4")
    spans = json.loads(body[10 * size :] or "[]")
    return Tokens(
        ids=tuple(ids.tolist()),
        log_probabilities=tuple(logs.tolist()),
        turn_of=tuple(turn_of.tolist()),
        images=images,
        weight_versions=tuple(WeightSpan(*span) for span in spans),
    )


def _message_row(message: Message, put: PutImage) -> Row:
    parts = [
        {"text": clean(part)} if isinstance(part, str) else {"image": put(part)}
        for part in message.parts
    ]
    return {"role": message.role, "parts": parts}


def _read_message(row: Row, get: GetImage) -> Message:
    parts = cast("list[dict[str, str]]", row["parts"])
    return Message(
        role=row["role"],
        parts=tuple(part["text"] if "text" in part else get(part["image"]) for part in parts),
    )


def _turn_row(number: int, turn: Turn, put: PutImage) -> Row:
    return {
        "number": number,
        "text": clean(turn.text),
        "action": turn.action.kind,
        "content": clean(turn.action.content),
        "format_fault": _clean_or_none(turn.action.format_fault),
        "reply": None if turn.reply is None else _message_row(turn.reply, put),
        "has_evidence": turn.has_evidence,
        "generation_seconds": turn.generation_seconds,
    }


def _read_turn(row: TurnRow, execution: ExecutionRow | None, get: GetImage) -> Turn:
    kind = row.action
    if kind not in ("code", "answer", "malformed"):
        raise ValueError(f"a stored turn has the unknown action {kind!r}")
    return Turn(
        text=row.text,
        action=Action(kind, row.content, row.format_fault),
        execution=None if execution is None else _read_execution(execution, get),
        reply=None if row.reply is None else _read_message(row.reply, get),
        has_evidence=row.has_evidence,
        generation_seconds=row.generation_seconds,
    )


def _execution_row(number: int, execution: Execution, put: PutImage) -> Row:
    return {
        "number": number,
        "outcome": HANDLED if execution.has_handled_error else str(execution.outcome),
        "stdout": clean(execution.stdout),
        "stderr": clean(execution.stderr),
        "error": _clean_or_none(execution.error),
        "images": [put(image) for image in execution.images],
        "wall_seconds": execution.wall_seconds,
        "cpu_seconds": execution.cpu_seconds,
    }


def _read_execution(row: ExecutionRow, get: GetImage) -> Execution:
    return Execution(
        outcome=Outcome.OK if row.outcome == HANDLED else Outcome(row.outcome),
        stdout=row.stdout,
        stderr=row.stderr,
        error=row.error,
        images=tuple(get(digest) for digest in row.images),
        wall_seconds=row.wall_seconds,
        cpu_seconds=row.cpu_seconds,
        has_handled_error=row.outcome == HANDLED,
    )
