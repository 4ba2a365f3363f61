"""A random policy: a baseline, and a smoke test of the environment."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..interface import Conversation, Reply, Sampling
from ..seeds import derive_seed

_CODE = (
    "print(input_image.size)",
    "import numpy as np\nprint(int(np.array(input_image).mean()))",
    "w, h = input_image.size\ndisplay(input_image.crop((0, 0, max(1, w // 2), max(1, h // 2))))",
    "raise ValueError('on purpose')",
)
_ANSWERS = ("yes", "no", "A", "B", *(str(number) for number in range(10)))
_CODE_SHARE = 0.5


class RandomPolicy:
    """Runs a random program or answers at random; the episode's seed decides."""

    id = "random"

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Return the next text of each conversation; replies from the third turn on answer."""
        del sampling
        return [Reply(_next_text(one)) for one in conversations]


def _next_text(conversation: Conversation) -> str:
    draw = random.Random(derive_seed("random policy", conversation.seed, conversation.turn))
    if conversation.interface != "text" and conversation.turn < 2 and draw.random() < _CODE_SHARE:
        if conversation.interface == "box":
            return f"<box>{_box(draw, conversation)}</box>"
        return f"<code>\n```python\n{draw.choice(_CODE)}\n```\n</code>"
    return f"<answer>{draw.choice(_ANSWERS)}</answer>"


def _box(draw: random.Random, conversation: Conversation) -> str:
    """Return a box within the first image."""
    images = [image for message in conversation.messages for image in message.images]
    width, height = images[0].size if images else (2, 2)
    left, top = draw.randrange(width), draw.randrange(height)
    right, bottom = draw.randint(left + 1, width), draw.randint(top + 1, height)
    return f"{left}, {top}, {right}, {bottom}"
