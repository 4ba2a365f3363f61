"""One trajectory in the page's format: plain values, images by digest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image

from ...envs.types import Message, Tokens, Trajectory, Turn
from .advantages import Advantages
from .pieces import PieceTable, TokenReader

DIGEST = "digest"
LEAST = -99.0
"""Smallest log-probability that is recorded."""


def stand_in(digest: str) -> Image.Image:
    """Return a tiny placeholder image with the digest of a stored one."""
    picture = Image.new("L", (1, 1))
    picture.info[DIGEST] = digest
    return picture


class Recorder:
    """Converts trajectories, read with `stand_in` images, to the content of a shard."""

    def __init__(self, pieces: PieceTable) -> None:
        self.systems = PieceTable()
        self._pieces = pieces

    def record(
        self, trajectory: Trajectory, advantages: Advantages, reader: TokenReader, penalty: float
    ) -> dict[str, Any]:
        """Return all that the page shows of a trajectory.

        Args:
            trajectory: The stored trajectory.
            advantages: Its advantages among its siblings.
            reader: Reader of the policy's tokens.
            penalty: Immediate reward of a failed turn.
        """
        tokens = trajectory.tokens
        return {
            "seed": str(trajectory.seed),
            "pass_rate": trajectory.pass_rate,
            "opening": [self._message(message) for message in trajectory.opening],
            "turns": [
                self._turn(turn, number, advantages, penalty)
                for number, turn in enumerate(trajectory.turns)
            ],
            "terms": dict(trajectory.reward_terms),
            "advantage": advantages.group,
            "tokens": None if tokens is None else self._tokens(tokens, reader),
            "count": 0 if tokens is None else len(tokens.ids),
        }

    def _message(self, message: Message) -> dict[str, Any]:
        if message.role == "system":
            return {"role": "system", "text": self.systems.place(message.text)}
        return {"role": message.role, "parts": _parts(message)}

    def _turn(
        self, turn: Turn, number: int, advantages: Advantages, penalty: float
    ) -> dict[str, Any]:
        run = turn.execution
        found: dict[str, Any] = {
            "text": turn.text,
            "kind": turn.action.kind,
            "content": turn.action.content,
            "fault": turn.action.format_fault,
            "evidence": turn.has_evidence,
            "reply": None if turn.reply is None else _parts(turn.reply),
        }
        if advantages.turns:
            found["advantage"] = advantages.turns[number]
        if turn.has_failed and penalty:
            found["tool_turn"] = penalty
        if run is not None:
            found["run"] = {
                "outcome": str(run.outcome),
                "stdout": run.stdout,
                "stderr": run.stderr,
                "error": run.error,
                "pictures": [picture.info[DIGEST] for picture in run.images],
                "wall": round(run.wall_seconds, 4),
                "cpu": round(run.cpu_seconds, 4),
            }
        return found

    def _tokens(self, tokens: Tokens, reader: TokenReader) -> list[list[list[int]]]:
        """Return pieces and log-probabilities (in thousandths) of the policy's tokens by turn."""
        turns: list[list[list[int]]] = []
        for turn in range(max(tokens.turn_of, default=-1) + 1):
            places = [n for n, of_turn in enumerate(tokens.turn_of) if of_turn == turn]
            texts = reader.read([tokens.ids[n] for n in places])
            logs = [_thousandths(tokens.log_probabilities[n]) for n in places]
            turns.append([[self._pieces.place(text) for text in texts], logs])
        return turns


def pictures_of(trajectory: Trajectory) -> list[str]:
    """Return the digests of all images in a trajectory, in order."""
    found = [picture.info[DIGEST] for picture in trajectory.images]
    for turn in trajectory.turns:
        if turn.execution is not None:
            found += [picture.info[DIGEST] for picture in turn.execution.images]
        if turn.reply is not None:
            found += [picture.info[DIGEST] for picture in turn.reply.images]
    return found


def mean_log_probability(tokens: Tokens | None) -> float | None:
    """Return the mean log-probability of the policy's tokens, its certainty; None without any."""
    own: Sequence[float] = (
        []
        if tokens is None
        else [
            value
            for value, turn in zip(tokens.log_probabilities, tokens.turn_of, strict=True)
            if turn >= 0
        ]
    )
    return sum(own) / len(own) if own else None


def _thousandths(log_probability: float) -> int:
    """Return whole thousandths, at least `LEAST`, which also stands for NaN."""
    known = LEAST if math.isnan(log_probability) else max(log_probability, LEAST)
    return round(1000 * known)


def _parts(message: Message) -> list[dict[str, str]]:
    return [
        {"text": part} if isinstance(part, str) else {"picture": part.info[DIGEST]}
        for part in message.parts
    ]
