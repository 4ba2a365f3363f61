"""Agreement of vLLM and our own model: differences of the sampled tokens' log-probabilities.

    python -m benchmarks.engine_agreement

Starts vLLM on this machine, for each precision; plays episodes of the nano suite on it, with the
shipped weights and after an update of the weights; and scores the sampled tokens with our own model
in each precision. Minutes; the first time it makes vLLM's environment.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from codedance.envs import load_suite
from codedance.envs.types import Task, Trajectory
from codedance.pipelines.config.server_settings import RolloutSettings
from codedance.pipelines.runs.processes import free_port
from codedance.pipelines.serving.engine.command import EngineOptions
from codedance.pipelines.serving.engine.policy import weights_folder
from codedance.pipelines.serving.engine.server import Engine, running_engine
from codedance.policies import rollout
from codedance.policies.inference.vllm.control import EngineControl
from codedance.policies.inference.vllm.policy import VllmPolicy
from codedance.policies.inference.vllm.settings import VllmSettings
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.model_folder import load_token_model, save_token_model
from codedance.policies.models.token_model import PicturedIds, TokenModel
from codedance.sandbox import open_sandbox

PRECISIONS = ("float32", "bfloat16")
_HEAD = ("vLLM", "our model", "weights", "tokens", "largest", "mean", "cached")
_NOISE = 0.02


def measure(engine: Engine, models: Sequence[TokenModel], tasks: Sequence[Task]) -> list[list[str]]:
    """Play episodes on a server; return the agreement with each model."""
    settings = VllmSettings(seeds=False)
    policy = VllmPolicy.of_folder(NANO_FOLDER, [engine.url], settings=settings)
    with open_sandbox("local") as sandbox:
        played = rollout(policy, tasks, sandbox=sandbox, samples=2, evidence=False)
    cached = policy.usage.figures()["cached_share"]
    rows: list[list[str]] = []
    for model in models:
        apart = torch.cat([_apart(model, one) for one in played])
        shown = [f"{len(apart):,}", f"{float(apart.max()):.1e}", f"{float(apart.mean()):.1e}"]
        rows.append([*shown, f"{cached:.0%}"])
    return rows


@torch.inference_mode()
def _apart(model: TokenModel, one: Trajectory) -> torch.Tensor:
    """Return |engine - trainer| of each sampled token."""
    tokens = one.tokens
    if tokens is None:
        return torch.empty(0)
    images = [image for message in one.conversation() for image in message.images]
    own = torch.tensor([tokens.mask])
    batch = model.pad([PicturedIds(tokens.ids, images[: tokens.images])])
    return (
        model.log_probabilities(batch, own, temperature=1.0)
        - torch.tensor(tokens.log_probabilities)[own[0]]
    ).abs()


def _disturb(model: TokenModel) -> None:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in model.model.parameters():
            scale = _NOISE * values.abs().mean().clamp(min=1e-3)
            values += scale * torch.randn(values.shape, generator=draw)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=60, help="held-out nano tasks, played twice")
    asked = parser.parse_args(arguments)
    suite = load_suite("nano", split="test")
    tasks = [suite[index] for index in range(asked.tasks)]
    first, updated = (load_token_model(NANO_FOLDER, device="cpu") for _ in range(2))
    _disturb(updated)
    rows: list[list[str]] = []
    work = Path(tempfile.mkdtemp(prefix="agreement-"))
    with weights_folder(RolloutSettings()) as folder:
        save_token_model(updated, folder / "updated")
        for precision in PRECISIONS:
            options = EngineOptions(port=free_port(), dtype=precision)
            log = work / f"{precision}.log"
            with running_engine(str(NANO_FOLDER), options, log=log, say=_say) as engine:
                for name, model in (("shipped", first), ("updated", updated)):
                    if name == "updated":
                        EngineControl(engine.url).load_weights(folder / "updated", name)
                    models = [_in(model, own) for own in PRECISIONS]
                    found = measure(engine, models, tasks)
                    rows += [
                        [precision, own, name, *values]
                        for own, values in zip(PRECISIONS, found, strict=True)
                    ]
    shutil.rmtree(work)
    for row in (_HEAD, ["---"] * len(_HEAD), *rows):
        sys.stdout.write(f"| {' | '.join(row)} |\n")


def _in(model: TokenModel, precision: str) -> TokenModel:
    """Return a copy of a model in a precision."""
    network = copy.deepcopy(model.model).to(getattr(torch, precision))
    return TokenModel(network, model.chat.tokenizer, model.pictures.processor)


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


if __name__ == "__main__":
    main()
