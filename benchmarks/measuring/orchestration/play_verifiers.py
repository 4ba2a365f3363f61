"""verifiers' rollout: its environment, interception server and training client.

python -m benchmarks.measuring.orchestration.play_verifiers URL --episodes 16
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence

from experiments.pains.benches import in_verifiers

from .playing import picture, read_options, report
from .recording import TOOL_SECONDS, TURNS, question


async def look(turn: str):
    """Return an image after the time of a tool."""
    await asyncio.sleep(TOOL_SECONDS)
    return [picture(int(turn)), "seen"]


def main() -> None:
    """Play as the options say; print the seconds."""
    options = read_options(__doc__)
    with tempfile.TemporaryDirectory() as place:
        context = in_verifiers.client_of(in_verifiers.tokenizer_folder(place), options.url)

        def play(numbers: Sequence[int]) -> None:
            questions = [[picture(number), question(number)] for number in numbers]
            environment = in_verifiers.make_environment(questions, look)
            for episode in in_verifiers.play(environment, context):
                (trace,) = episode.traces
                if not episode.ok or trace.num_turns != TURNS:
                    raise RuntimeError(f"{trace.num_turns} turns, {trace.errors}, {episode.errors}")

        report(play, options)


if __name__ == "__main__":
    main()
