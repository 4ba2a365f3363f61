"""Our rollout: `VllmPolicy` or `OpenAIPolicy`, and code that returns an image in the real sandbox.

python -m benchmarks.measuring.orchestration.play_ours URL --episodes 16
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from codedance.envs.types import AnswerKind, Task, Trajectory
from codedance.policies import rollout
from codedance.policies.inference.endpoint import Endpoint
from codedance.policies.inference.openai_client import OpenAIPolicy
from codedance.policies.inference.vllm.policy import VllmPolicy
from codedance.policies.interface import Policy, Sampling
from codedance.policies.loading import NANO_FOLDER
from codedance.sandbox import open_sandbox
from codedance.sandbox.types import Sandbox

from ..slow_sandbox import SlowSandbox
from .playing import Options, picture, read_options, report
from .recording import SIDE, TOOL_SECONDS, TURNS, question


def model_folder(folder: Path) -> Path:
    """Write the nano model's tokenizer and configuration, with images of a full-sized model."""
    for path in NANO_FOLDER.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
    settings = folder / "preprocessor_config.json"
    values = json.loads(settings.read_text(encoding="utf-8"))
    values["size"] = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    settings.write_text(json.dumps(values), encoding="utf-8")
    return folder


def tasks(numbers: Sequence[int]) -> list[Task]:
    """Return a task per episode."""
    return [
        Task(
            id=f"orchestration/{number}",
            suite="orchestration",
            family="orchestration",
            split="test",
            question=question(number),
            images=(picture(number),),
            answer="4",
            answer_kind=AnswerKind.INTEGER,
        )
        for number in numbers
    ]


def policy_of(options: Options, folder: Path) -> Policy:
    """Return a client of the fake engine."""
    if options.client == "vllm":
        return VllmPolicy.of_folder(model_folder(folder), [options.url])
    endpoint = Endpoint(concurrency=options.episodes)
    return OpenAIPolicy("fake", base_url=f"{options.url}/v1", api_key="none", endpoint=endpoint)


def player(options: Options, folder: Path) -> tuple[Callable[[Sequence[int]], None], Sandbox]:
    """Return a function that plays episodes, and the sandbox to close."""
    sandbox: Sandbox = open_sandbox("local")
    if options.tool == "remote":
        sandbox = SlowSandbox(sandbox, TOOL_SECONDS)
    policy = policy_of(options, folder)
    sampling = Sampling(max_new_tokens=1024, max_tokens=16384)

    def play(numbers: Sequence[int]) -> None:
        played = rollout(
            policy,
            tasks(numbers),
            sandbox=sandbox,
            sampling=sampling,
            batch_size=len(numbers),
            evidence=options.evidence,
        )
        for one in played:
            check(one)

    return play, sandbox


def check(one: Trajectory) -> None:
    """Reject an episode that was not played as recorded."""
    images = sum(len(message.images) for message in one.conversation())
    turns = len(one.turns)
    if (turns, images, one.ending.value) != (TURNS, TURNS, "answered"):
        raise RuntimeError(f"{one.task_id}: {turns} turns, {images} images, {one.ending}")


def main() -> None:
    """Play as the options say; print the seconds."""
    options = read_options(__doc__)
    with tempfile.TemporaryDirectory() as place:
        play, sandbox = player(options, Path(place))
        with sandbox:
            report(play, options)


if __name__ == "__main__":
    main()
