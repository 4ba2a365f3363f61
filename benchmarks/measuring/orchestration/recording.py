"""What the fake engine writes: replies of fixed lengths for each episode and turn.

Lengths are drawn once, from a log-normal distribution with a median of 180 tokens, and depend on
the number of the episode alone. A reply is filler thought of that length around a call of the tool
(in the format of the contestant), or an answer in the last turn.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass

from .latency import Turn

TURNS = 4
"""Turns per episode: three with a call of the tool, and the answer."""
TOOL_SECONDS = 0.2
SIDE = 504
"""Width and height of every image, in pixels: 324 tokens of Qwen2.5-VL."""
STYLES = ("code", "call", "call-tokens")
CALL_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""Control tokens of the style ``call-tokens``, in the order of their ids."""
_QUESTION_TOKENS = 320
_REPLY_TOKENS = 40
_IMAGE_TOKENS = 324
_MARK = re.compile(r"episode (\d{5})")
_BODY = "import time\ntime.sleep({seconds})\ninput_image.rotate({turn})"
_CODE = "</think>\n<code>\n```python\n{body}\n```\n</code>"
_CALL = '</think>\n<tool_call>\n{{"name": "look", "arguments": {{"turn": "{turn}"}}}}\n</tool_call>'


def question(episode: int) -> str:
    """Return the question of an episode, by which the engine knows it again."""
    return f"This is episode {episode:05d}. How many bars are there?"


def episode_of(text: str) -> int:
    """Return the number of the episode that a prompt belongs to.

    Raises:
        ValueError: The prompt holds no question of ours.
    """
    found = _MARK.search(text)
    if found is None:
        raise ValueError(f"no number of an episode in the prompt: {text[:200]!r}")
    return int(found[1])


def recorded(episode: int) -> tuple[Turn, ...]:
    """Return the turns of an episode."""
    draw = random.Random(episode)
    turns = [
        Turn(
            _IMAGE_TOKENS + (_REPLY_TOKENS if number else _QUESTION_TOKENS),
            min(max(round(math.exp(draw.gauss(math.log(180.0), 0.4))), 90), 600),
        )
        for number in range(TURNS)
    ]
    return tuple(turns)


@dataclass(frozen=True, slots=True)
class Style:
    """Format of the replies.

    Attributes:
        name: ``code`` (ours), ``call`` (a JSON tool call in tags, as Qwen's models write it) or
            ``call-tokens`` (the same with tags that are tokens of their own).
        seconds: Seconds that the code sleeps; the tool of ``call`` sleeps by itself.
    """

    name: str
    seconds: float = TOOL_SECONDS

    def ending(self, turn: int) -> str:
        """Return the text that follows the filler of a turn."""
        if turn >= TURNS - 1:
            return "</think>\n<answer>4</answer>"
        if self.name != "code":
            return _CALL.format(turn=turn + 1)
        body = _BODY.format(seconds=self.seconds, turn=turn + 1)
        if not self.seconds:
            body = body.splitlines()[-1]
        return _CODE.format(body=body)
