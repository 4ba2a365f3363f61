"""Rendering of the newest turn of an episode as text and as an image."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..sandbox.plain_text import escape_controls
from .episode import Episode
from .types import Turn

SIZE = (1024, 576)
"""Width and height of the image, the same for every turn, as videos require."""

_MARGIN = 12
_COLUMN = 400
_LINE = 16
_LONGEST = 4_000


def turn_text(episode: Episode) -> str:
    """Return the question (before the first turn) or the newest turn: text, code and reply.

    It is safe to print: control characters in it are escapes.
    """
    return escape_controls(_newest(episode))


def _newest(episode: Episode) -> str:
    if not episode.turns:
        pictures = ", ".join(f"{image.width} x {image.height}" for image in episode.images)
        return f"{episode.task.id}\n[picture {pictures}]\n{episode.task.question}"
    turn = episode.turns[-1]
    lines = [f"turn {len(episode.turns)} of {episode.max_turns}", turn.text]
    if turn.action.kind == "malformed":
        lines.append(f"malformed: {turn.action.content}")
    if turn.reply is not None:
        lines += [
            part if isinstance(part, str) else f"[picture {part.width} x {part.height}]"
            for part in turn.reply.parts
        ]
    if episode.ending is not None:
        lines.append(f"ending: {episode.ending}")
    return "\n".join(lines)


def turn_picture(episode: Episode) -> NDArray[np.uint8]:
    """Draw the question's image, the newest turn's text or code, and its output.

    Returns:
        Array ``(576, 1024, 3)``.
    """
    canvas = Image.new("RGB", SIZE, "white")
    half = SIZE[0] - _COLUMN - 3 * _MARGIN
    _paste(canvas, episode.images[:1], (_MARGIN, _MARGIN, _COLUMN, SIZE[1] // 2))
    question = f"{episode.task.question}\n\n{_progress(episode)}"
    _write(canvas, question, (_MARGIN, SIZE[1] // 2 + 2 * _MARGIN), _COLUMN)
    if episode.turns:
        turn = episode.turns[-1]
        left = _COLUMN + 2 * _MARGIN
        _write(canvas, _spoken(turn), (left, _MARGIN), half)
        if turn.execution is not None:
            _write(canvas, _output(turn), (left, SIZE[1] // 2), half // 2)
            box = (left + half // 2, SIZE[1] // 2, half // 2, SIZE[1] // 2 - _MARGIN)
            _paste(canvas, turn.execution.images[-1:], box)
    return np.array(canvas, dtype=np.uint8)


def _progress(episode: Episode) -> str:
    ending = "" if episode.ending is None else f", {episode.ending}"
    return f"turn {len(episode.turns)} of {episode.max_turns}{ending}"


def _spoken(turn: Turn) -> str:
    return turn.action.content if turn.action.kind == "code" else turn.text


def _output(turn: Turn) -> str:
    execution = turn.execution
    if execution is None:
        return ""
    parts = (execution.outcome.value, execution.stdout, execution.stderr, execution.error or "")
    return "\n".join(part for part in parts if part)


def _write(canvas: Image.Image, text: str, corner: tuple[int, int], width: int) -> None:
    """Draw wrapped text from a corner down to the middle or the lower edge."""
    font = ImageFont.load_default(12)
    plain = text[:_LONGEST].encode("utf-8", "replace").decode()
    bottom = SIZE[1] // 2 - _MARGIN if corner[1] < SIZE[1] // 2 else SIZE[1] - _MARGIN
    lines = [
        piece
        for line in plain.splitlines()
        for piece in textwrap.wrap(line, max(8, width // 7), drop_whitespace=False) or [""]
    ]
    shown = lines[: max(1, (bottom - corner[1]) // _LINE)]
    for place, line in enumerate(shown):
        position = (corner[0], corner[1] + place * _LINE)
        ImageDraw.Draw(canvas).text(position, line, fill="black", font=font)


def _paste(
    canvas: Image.Image, images: Sequence[Image.Image], box: tuple[int, int, int, int]
) -> None:
    """Paste the first image, if any, into a box ``(left, top, width, height)``."""
    left, top, width, height = box
    for image in images[:1]:
        scale = min(width / image.width, height / image.height)
        size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
        canvas.paste(image.convert("RGB").resize(size), (left, top))
