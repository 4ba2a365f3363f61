"""Shows episodes in a terminal: turns as text, images inline if the terminal supports them."""

from __future__ import annotations

import base64
import errno
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from ....envs.parsing import thought_in
from ....envs.types import Trajectory, Turn
from ....sandbox.plain_text import escape_controls
from ..output import draw, say

CHUNK = 4096


def picture_protocol(environment: Mapping[str, str] | None = None) -> str | None:
    """Return the image protocol of this terminal: ``kitty``, ``iterm``, or None."""
    environment = os.environ if environment is None else environment
    if environment.get("TMUX") or environment.get("STY"):  # they swallow the sequences
        return None
    if environment.get("KITTY_WINDOW_ID") or "kitty" in environment.get("TERM", ""):
        return "kitty"
    program = environment.get("TERM_PROGRAM", "")
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return "kitty" if program == "ghostty" else None


def picture_sequence(image: Image.Image, protocol: str) -> str:
    """Return the escape sequence that draws an image."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    if protocol == "iterm":
        return f"\x1b]1337;File=inline=1;size={len(buffer.getvalue())}:{data}\a"
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    parts: list[str] = []
    for number, chunk in enumerate(chunks):
        head = "a=T,f=100," if number == 0 else ""
        more = int(number < len(chunks) - 1)
        parts.append(f"\x1b_G{head}m={more};{chunk}\x1b\\")
    return "".join(parts)


def picture_folder(folder: Path, *, is_asked_for: bool) -> Path | None:
    """Create the folder for an episode's images; return None if it cannot be created.

    Raises:
        OSError: The folder cannot be created, and the user named it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
        if not writable:
            raise PermissionError(errno.EACCES, "the folder is not writable", str(folder))
    except OSError as error:
        if is_asked_for:
            raise
        print(f"images are not saved: {error}", file=sys.stderr)  # noqa: T201
        return None
    return folder


def show_picture(image: Image.Image, folder: Path | None, name: str) -> None:
    """Save an image if there is a folder for it, and draw it if the terminal can."""
    protocol = picture_protocol() if sys.stdout.isatty() else None
    if protocol is not None:
        draw(picture_sequence(image, protocol))
    words = f"  image {image.width} by {image.height}"
    if folder is None:
        say(words)
        return
    image.save(folder / name)
    say(f"{words}: {folder / name}")


def show_turn(number: int, turn: Turn, folder: Path | None) -> None:
    """Print a turn: its thought, code and output.

    Args:
        number: Number of the turn, from 1.
        turn: The turn.
        folder: Folder for returned images; None saves none.
    """
    say(f"── turn {number} " + "─" * 50)
    thought = thought_in(turn.text)
    if thought:
        say(thought)
    if turn.action.kind == "code":
        say(_indented(turn.action.content.strip("\n"), "  │ "))
    elif turn.action.kind == "malformed":
        say(f"  (malformed: {turn.action.content})")
        say(_indented(turn.text, "  ? "))
    if turn.execution is not None:
        for text in (turn.execution.stdout, turn.execution.stderr, turn.execution.error or ""):
            if text.strip():
                say(_indented(text.strip("\n"), "  → "))
        for index, image in enumerate(turn.execution.images, 1):
            show_picture(image, folder, f"turn-{number}-{index}.png")
    if turn.action.kind == "answer":
        say(f"answer: {turn.action.content}")


def episode_document(episode: Trajectory, question: str) -> dict[str, object]:
    """Return an episode as a JSON document; returned images by their sizes."""
    return {
        "task": episode.task_id,
        "policy": episode.policy_id,
        "question": question,
        "answer": episode.answer,
        "ending": episode.ending,
        "turns": [_turn_document(turn) for turn in episode.turns],
    }


def _turn_document(turn: Turn) -> dict[str, object]:
    execution = turn.execution
    ran = None
    if execution is not None:
        ran = {
            "outcome": execution.outcome,
            "stdout": execution.stdout,
            "stderr": execution.stderr,
            "error": execution.error,
            "images": [list(image.size) for image in execution.images],
        }
    return {
        "text": turn.text,
        "action": turn.action.kind,
        "content": turn.action.content,
        "execution": ran,
    }


def _indented(text: str, margin: str) -> str:
    return "\n".join(margin + line for line in escape_controls(text).splitlines())
