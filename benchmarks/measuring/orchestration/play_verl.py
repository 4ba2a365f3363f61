"""verl's rollout: its `ToolAgentLoop`, whose server's client asks the fake engine for exact ids.

In verl, images reach the engine as objects of Ray, by shared memory; here only ids are sent, so
that part is not counted. The tool is a coroutine: plain functions would share six threads.

    python -m benchmarks.measuring.orchestration.play_verl URL --episodes 16
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
from verl.tools.schemas import ToolResponse
from verl.workers.rollout.replica import TokenOutput

from experiments.pains.benches import in_verl
from experiments.pains.benches.tiny_model import load_processor

from .playing import picture, read_options, report
from .recording import SIDE, TOOL_SECONDS, TURNS, question


async def look(turn: str) -> ToolResponse:
    """Return an image after the time of a tool."""
    await asyncio.sleep(TOOL_SECONDS)
    return ToolResponse(text="seen", image=[picture(int(turn))])


class Server:
    """What verl calls its server's client."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def generate(self, request_id, *, prompt_ids, sampling_params, **_):
        """Ask the fake engine."""
        body = {"token_ids": prompt_ids, "sampling_params": sampling_params}
        reply = await self._client.post("/inference/v1/generate", json=body)
        (choice,) = reply.raise_for_status().json()["choices"]
        scores = [one["logprob"] for one in choice["logprobs"]["content"]]
        return TokenOutput(token_ids=choice["token_ids"], log_probs=scores, stop_reason="completed")


def main() -> None:
    """Play as the options say; print the seconds."""
    options = read_options(__doc__)
    processor = load_processor(pixels=SIDE * SIDE)
    limits = httpx.Limits(max_connections=None)

    async def run(numbers: Sequence[int]) -> list:
        async with httpx.AsyncClient(base_url=options.url, limits=limits, timeout=None) as client:

            async def one(number: int):
                loop, _ = in_verl.make_loop(
                    [], look, response_length=16384, server=Server(client), processor=processor
                )
                return await in_verl.run(loop, picture(number), question(number))

            return await asyncio.gather(*map(one, numbers))

    def play(numbers: Sequence[int]) -> None:
        for output in asyncio.run(run(numbers)):
            images = len(output.multi_modal_data["images"])
            if (output.num_turns, images) != (2 * TURNS, TURNS):
                raise RuntimeError(f"{output.num_turns} turns, {images} images")

    report(play, options)


if __name__ == "__main__":
    main()
