"""TRL's rollout: the tool loop of `GRPOTrainer` with its own client of a vLLM server.

``--client grpo``: `GRPOTrainer._generate` in server mode, images included. ``--client async``:
the rollout loop of TRL's experimental AsyncGRPO, which sends no images; its tool returns text.
TRL's client asks for an installed vLLM, of which the part used here has no need.

    python -m benchmarks.measuring.orchestration.play_trl URL --client grpo --episodes 16
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence

import requests
from datasets import Dataset
from requests.adapters import HTTPAdapter
from trl.experimental.async_grpo import async_rollout_worker
from trl.generation import vllm_client

from experiments.pains.benches import in_trl
from experiments.pains.benches.tiny_model import load_processor

from .playing import Options, picture, read_options, report
from .recording import SIDE, TOOL_SECONDS, TURNS, question


def look(turn: str) -> list:
    """Look at the image.

    Args:
        turn: Angle.
    """
    time.sleep(TOOL_SECONDS)
    return [{"type": "image", "image": picture(int(turn))}, {"type": "text", "text": "seen"}]


async def glance(turn: str) -> str:
    """Look at the image.

    Args:
        turn: Angle.
    """
    await asyncio.sleep(TOOL_SECONDS)
    return f"seen {turn}"


glance.__name__ = "look"


class Client(vllm_client.VLLMClient):
    """TRL's client, without the check for an installed vLLM."""

    def __init__(self, url: str) -> None:
        self.session = requests.Session()
        self.session.mount("http://", HTTPAdapter(pool_maxsize=64))
        self.base_url, self.model = url, "fake"


class Trainer(in_trl.Scripted):
    """`GRPOTrainer` that generates as in its server mode (`VLLMGeneration.generate`)."""

    client: Client

    def _generate_single_turn(self, prompt_ids, images, fields, num_generations, **_):
        features = self.client.image_features(images)
        found = self.client.generate(prompts=prompt_ids, features=features, max_tokens=1024)
        return found["completion_ids"], [[one[0] for one in row] for row in found["logprobs"]]


def grpo(options: Options):
    """Return a function that plays episodes with `GRPOTrainer`."""
    processor = load_processor(in_trl.template(), pixels=SIDE * SIDE)
    trainer = in_trl.make_trainer(
        rewards=[lambda completions, **_: [0.0] * len(completions)],
        tools=[look],
        processor=processor,
        max_completion_length=16384,
    )
    trainer.__class__ = Trainer
    trainer.client = Client(options.url)

    def play(numbers: Sequence[int]) -> None:
        prompts = []
        for number in numbers:
            content = [{"type": "image", "image": picture(number)}]
            content.append({"type": "text", "text": question(number)})
            prompts.append([{"role": "user", "content": content}])
        trainer._sync_tool_dicts = [{"look": look}] * len(prompts)  # as for each batch
        trainer._async_tool_dicts = [{}] * len(prompts)
        _, _, _, completions, _, _, images, _ = trainer._generate(prompts)
        for completion, seen in zip(completions, images, strict=True):
            said = sum(one["role"] == "assistant" for one in completion)
            if (said, len(seen)) != (TURNS, TURNS):
                raise RuntimeError(f"{said} turns, {len(seen)} images")

    return play


def queue():
    """Return a queue that nobody reads; the process does not wait for a reader at its end."""
    made = multiprocessing.Queue()
    made.cancel_join_thread()
    return made


def asynchronous(options: Options):
    """Return a function that plays episodes with AsyncGRPO's rollout loop."""
    tokenizer = load_processor(in_trl.template()).tokenizer

    def play(numbers: Sequence[int]) -> None:
        rows = [{"prompt": [{"role": "user", "content": question(number)}]} for number in numbers]
        loop = async_rollout_worker._AsyncRolloutLoop(
            model_name="fake",
            dataset=Dataset.from_list(rows),
            reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
            processing_class=tokenizer,
            eos_token_ids=[tokenizer.eos_token_id],
            rollout_buffer=queue(),
            model_version_value=multiprocessing.Value("i", 0),
            heartbeat_value=multiprocessing.Value("d", 0.0),
            failed_event=multiprocessing.Event(),
            exception_info_queue=queue(),
            metrics_queue=queue(),
            tools=[glance],
            max_inflight_tasks=len(numbers),
            vllm_server_url=options.url,
            max_tokens=1024,
        )

        async def run():
            limit = async_rollout_worker.aiohttp.TCPConnector(limit=len(numbers))
            async with async_rollout_worker.aiohttp.ClientSession(connector=limit) as session:
                loop.session = session
                one = (
                    loop._generate_one(row["prompt"], {"look": glance}, [glance]) for row in rows
                )
                return await asyncio.gather(*one)

        for completion, *_ in asyncio.run(run()):
            said = sum(one["role"] == "assistant" for one in completion)
            if said != TURNS:
                raise RuntimeError(f"{said} turns: {completion}")

    return play


def main() -> None:
    """Play as the options say; print the seconds."""
    options = read_options(__doc__)
    report(grpo(options) if options.client == "grpo" else asynchronous(options), options)


if __name__ == "__main__":
    main()
