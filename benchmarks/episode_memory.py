"""Memory that an episode holds after extreme output: ``python -m benchmarks.episode_memory``.

The first episode shows an image of 4096 x 4096 in each of five turns; the command prints by how
much the resident memory of this process grew, and what is held as images. The second prints 16,000
emoji; the command prints the length of the training row at a limit of 1,024 tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from codedance.envs.episode import Episode
from codedance.envs.freed_memory import give_back
from codedance.envs.suites.loading import load_suite
from codedance.envs.types import Message, Task, Trajectory
from codedance.policies import load_policy, rollout
from codedance.policies.interface import Conversation, Reply, Sampling
from codedance.sandbox import open_sandbox
from codedance.sandbox.types import Sandbox
from PIL import Image

_SHOW = "from PIL import Image\ndisplay(Image.effect_noise((4096, 4096), 40).convert('RGB'))"
_EMOJI = "import sys\nprint('\\N{PINEAPPLE}' * 8000)\nsys.stderr.write('\\N{PINEAPPLE}' * 8000)"
_TURNS = 5


def main() -> None:
    """Print both figures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    task = load_suite("nano", split="test")[0]
    with open_sandbox("local") as sandbox:
        sys.stdout.write(images_held(task, sandbox) + "\n")
        sys.stdout.write(row_length(task, sandbox) + "\n")


def images_held(task: Task, sandbox: Sandbox) -> str:
    """Run an episode that shows five large images; describe the memory that it holds."""
    with Episode(task, sandbox) as episode:
        episode.step(_in_code("display(input_image)"))
    give_back()
    before = _resident_mb()
    with Episode(task, sandbox) as episode:
        for _ in range(_TURNS):
            episode.step(_in_code(_SHOW))
        give_back()
        grown = _resident_mb() - before
        every = [*_images(episode.messages), *_shown(episode)]
    pixels = sum(one.width * one.height for one in {id(one): one for one in every}.values())
    return f"{_TURNS} turns of 4096 x 4096: {grown} MB held, {pixels / 1e6:.1f} megapixels"


def row_length(task: Task, sandbox: Sandbox) -> str:
    """Roll out an episode whose code prints 16,000 emoji; describe its training row."""
    sampling = Sampling(max_new_tokens=64, max_tokens=1024)
    policy = _PrintingPolicy()
    (one,) = rollout(policy, [task], sandbox=sandbox, sampling=sampling, evidence=False)
    return f"16,000 emoji at max_tokens 1,024: a row of {_length(one):,} tokens, {one.ending}"


class _PrintingPolicy:
    """The nano model, whose first reply is followed by the output of the emoji."""

    id = "emoji"

    def __init__(self) -> None:
        self._policy = load_policy("nano")

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Return the model's replies; code that prints emoji replaces the text of the first."""
        replies = self._policy.reply(conversations, sampling=sampling)
        return [
            reply if one.turn else Reply(_in_code(_EMOJI), new_tokens=reply.new_tokens)
            for one, reply in zip(conversations, replies, strict=True)
        ]


def _length(one: Trajectory) -> int:
    return 0 if one.tokens is None else len(one.tokens.ids)


def _in_code(block: str) -> str:
    return f"<think>t</think><code>\n```python\n{block}\n```\n</code>"


def _images(messages: Sequence[Message]) -> list[Image.Image]:
    return [image for message in messages for image in message.images]


def _shown(episode: Episode) -> list[Image.Image]:
    return [image for turn in episode.turns if turn.execution for image in turn.execution.images]


def _resident_mb() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) >> 10


if __name__ == "__main__":
    main()
