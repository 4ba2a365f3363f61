"""Messages of an episode: the opening messages and the reply to each block.

Replies are short, since a small model has to read them: a block's output is the only content
between the tags, an empty output is ``(no output)``, and only the reply before the last turn adds
more. Replies are never parsed: they may contain any tag that code printed, without effect.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from ..sandbox import Execution
from .parsing import ONE_REQUEST, Interface, Requests
from .picture import DEFAULT_MAX_PIXELS, PictureError, presentable
from .types import Message, Part

LAST_TURN = "This is your last turn: answer now, without tools."

_ANSWER = (
    "Think between <think> and </think>. Give the final answer between <answer> and </answer>, "
    "exactly once and as short as the question allows; it ends the conversation."
)
_TOOLS: dict[Interface, str] = {
    "code": (
        "Where looking is not enough, write one Python block per turn, between <code> and </code> "
        "inside a ```python fence. The first picture is the PIL image `input_image`, all of them "
        "are the list `input_images`. What the block prints, its last expression and what it "
        "passes to `display` come back between <tool_response> tags. Variables persist from turn "
        "to turn; a block that fails changes nothing."
    ),
    "box": (
        "Where looking is not enough, ask for a crop of the picture in pixels: "
        "<box>x1, y1, x2, y2</box>, one per turn. It comes back between <tool_response> tags."
    ),
    "text": "There are no tools: answer in your first turn.",
}


def system_prompt(interface: Interface = "code") -> str:
    """Return the rules of the conversation for a policy that was not trained on them."""
    return f"You answer questions about pictures. {_ANSWER} {_TOOLS[interface]}"


def question_message(
    question: str, images: Sequence[Image.Image], *, interface: Interface = "code"
) -> Message:
    """Return the opening question: the images, then the question, nothing else.

    The interface has no effect here yet: its rules are in the system message.
    """
    del interface
    return Message("user", (*images, question))


def tool_reply(
    execution: Execution,
    *,
    turns_left: int,
    requests: Requests = ONE_REQUEST,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Message:
    """Return the reply to the policy for a block's execution.

    Args:
        execution: The sandbox's record of the block.
        turns_left: Number of turns left; before the last the reply asks for the answer.
        requests: Requests of the turn; for several the reply says which one was run.
        max_pixels: Maximum number of pixels per image; larger ones are downscaled.
    """
    lines = [execution.stdout.rstrip("\n")] if execution.stdout.strip() else []
    if execution.stderr.strip():
        lines.append(f"stderr: {execution.stderr.strip()}")
    if execution.error is not None:
        lines.append(execution.error)
    parts: list[Part] = []
    for number, image in enumerate(execution.images, start=1):
        lines.append(f"picture {number}, {image.width} x {image.height}:")
        try:
            picture = presentable(image, max_pixels)
        except PictureError as error:
            lines.append(f"(not shown: {error})")
            continue
        parts += "\n".join(lines), picture
        lines = []
    if not (lines or parts):
        lines = ["(no output)"]
    lines.append("</tool_response>")
    if requests.count > 1:
        lines.append(_only_one(requests))
    if turns_left == 1:
        lines.append(LAST_TURN)
    return Message("user", _opened((*parts, "\n".join(lines))))


def _only_one(requests: Requests) -> str:
    which = "the first" if requests.chosen == 0 else "the one in <code>"
    return f"Only {which} of your {requests.count} {requests.kind} was run: write one per turn."


def _opened(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    return (f"<tool_response>\n{parts[0]}", *parts[1:])
