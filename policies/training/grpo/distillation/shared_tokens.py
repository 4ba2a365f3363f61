"""Whether two models read the same ids: a teacher can only score the tokens of its own tokenizer.

Compared are the vocabularies, the control ids, the ids of images of several sizes, and the ids of a
conversation with images. The number of logits may differ: checkpoints of one line are padded to
different sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .....envs.types import Message
from ....models.prompt_encoder import PromptEncoder

if TYPE_CHECKING:
    from PIL import Image

_SIZES = ((56, 56), (100, 70), (31, 400), (1000, 600), (2400, 1800))
_TEXT = "How many edges?\n\t<code>\n```python\nprint(input_image.size, 'é', \"日本\")\n```\n</code>"


class TeacherMismatchError(ValueError):
    """The teacher reads other ids than the trained model; the message says which."""


def check_shared_tokens(student: PromptEncoder, teacher: PromptEncoder, *, name: str) -> None:
    """Reject a teacher that would read the trained model's ids as something else.

    Args:
        student: Encoder of the trained model.
        teacher: Encoder of the teacher.
        name: Name of the teacher, for messages.

    Raises:
        TeacherMismatchError: Vocabulary, control ids, image sizes or chat layout differ.
    """
    found = (
        _vocabularies(student, teacher)
        or _controls(student, teacher)
        or _image_sizes(student, teacher)
        or _conversations(student, teacher)
    )
    if found:
        raise TeacherMismatchError(
            f"the teacher {name} does not share the tokens of the trained model: {found}; choose "
            "a teacher of the same line, whose tokenizer and image processor are the same"
        )


def check_images(
    teacher: PromptEncoder, ids: Sequence[int], images: Sequence[Image.Image], *, name: str
) -> None:
    """Reject ids that do not hold exactly these images for the teacher.

    Raises:
        TeacherMismatchError: An image has another number of tokens.
    """
    try:
        teacher.collapse(ids, images)
    except ValueError as error:
        raise TeacherMismatchError(
            f"the teacher {name} gives images other numbers of tokens than the trained model "
            f"({error}): give both image processors the same sizes"
        ) from error


def probe(encoder: PromptEncoder) -> tuple[tuple[int, ...], list[Image.Image]]:
    """Return the ids of a short conversation with an image, and its images."""
    message = Message("user", (_drawing((100, 70)), _TEXT))
    encoded = encoder.chat.encode([message, Message("assistant", (_TEXT,))])
    return encoded.ids, list(encoded.images)


def _vocabularies(student: PromptEncoder, teacher: PromptEncoder) -> str:
    own: dict[str, int] = student.chat.tokenizer.get_vocab()
    other: dict[str, int] = teacher.chat.tokenizer.get_vocab()
    if own == other:
        return ""
    token = min(
        (one for one in {**own, **other} if own.get(one) != other.get(one)),
        key=lambda one: own.get(one, other.get(one, 0)),
    )
    return (
        f"its vocabulary has {len(other)} tokens for {len(own)}, and {token!r} is "
        f"{_id(other, token)} for {_id(own, token)}"
    )


def _id(vocabulary: dict[str, int], token: str) -> str:
    return f"id {vocabulary[token]}" if token in vocabulary else "no token"


def _controls(student: PromptEncoder, teacher: PromptEncoder) -> str:
    own, other = student.chat, teacher.chat
    pairs = (
        ("control ids", sorted(own.control_ids), sorted(other.control_ids)),
        ("id that ends a turn", own.end_id, other.end_id),
        ("image id", own.image_id, other.image_id),
    )
    return next(
        (f"its {name}: {there} for {here}" for name, here, there in pairs if here != there), ""
    )


def _image_sizes(student: PromptEncoder, teacher: PromptEncoder) -> str:
    for size in _SIZES:
        image = _drawing(size)
        own, other = student.chat.image_ids(image), teacher.chat.image_ids(image)
        if own != other:
            return (
                f"an image of {size[0]} × {size[1]} pixels has {len(other)} ids for {len(own)} "
                "(min_pixels and max_pixels of preprocessor_config.json)"
            )
    return ""


def _conversations(student: PromptEncoder, teacher: PromptEncoder) -> str:
    messages = [
        Message("system", (_TEXT,)),
        Message("user", (_drawing((100, 70)), _TEXT)),
        Message("assistant", (_TEXT,)),
        Message("user", ("shown: ", _drawing((64, 90)), _TEXT)),
    ]
    for what, (own, other) in {
        "a conversation": [one.chat.open_prompt(messages) for one in (student, teacher)],
        "a tool's reply": [one.chat.after_reply(messages[3:]) for one in (student, teacher)],
    }.items():
        if own != other:
            places = range(min(len(own), len(other)))
            place = next((n for n in places if own[n] != other[n]), len(places))
            return (
                f"{what} has {len(other)} ids for {len(own)}, different from id {place} on (its "
                "chat layout or the merges of its tokenizer)"
            )
    return ""


def _drawing(size: tuple[int, int]) -> Image.Image:
    from PIL import Image

    return Image.linear_gradient("L").resize(size).convert("RGB")
