"""verl 0.9: its agent loop, advantages and loss on our episodes.

Our own model needs a newer transformers than verl allows, so the nano model writes in a process of
our environment, behind vLLM's route of exact ids.
"""

import asyncio
import itertools

import httpx
import hydra
import numpy as np
import pandas
import pytest
import torch
import verl  # registers our plugin
import yaml
from codedance.envs.episode_factory import EpisodeHost, HostSettings
from codedance.envs.suites.nano.suite import FAMILIES
from codedance.policies.adapters import verl_loop
from codedance.policies.adapters.verl_loop import dataset_row
from codedance.policies.inference.openai_client import data_uri
from codedance.policies.loading import NANO_FOLDER
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.trainer.ppo.core_algos import agg_loss
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput

from trainers.page import ROOT, FailingSandbox, blocks_of, execute, free_port, say, served

ROWS, AFTER = blocks_of("verl")
NANO = {"families": ["bars", "digit"], "max_turns": 3, "system_prompt": ""}


class Processor:
    """The part of a processor that the loop reads: nano has no other."""

    image_processor = Qwen2VLImageProcessorPil.from_pretrained(NANO_FOLDER)


TOKENIZER = AutoTokenizer.from_pretrained(NANO_FOLDER)
IMAGE = TOKENIZER.convert_tokens_to_ids("<|image_pad|>")


class Engine:
    """What verl calls its server's client, in front of the nano model."""

    def __init__(self, url):
        self.url = url.removesuffix("/v1")

    async def generate(self, request_id, *, prompt_ids, sampling_params, image_data=None, **_):
        parts = [{"type": "image_url", "url": data_uri(image)} for image in image_data or []]
        # The engine expands one id for each image, as vLLM does.
        ids = [
            one
            for token, run in itertools.groupby(prompt_ids)
            for one in ([token] if token == IMAGE else list(run))
        ]
        body = {"model": "nano", "token_ids": ids, "content_parts": parts}
        async with httpx.AsyncClient(timeout=None) as client:
            reply = await client.post(
                f"{self.url}/inference/v1/generate", json=body | {"sampling_params": {}}
            )
        told = reply.raise_for_status().json()
        assert told["prompt_token_ids"] == list(prompt_ids)
        (choice,) = told["choices"]
        scores = [one["logprob"] for one in choice["logprobs"]["content"]]
        return TokenOutput(token_ids=choice["token_ids"], log_probs=scores, stop_reason="completed")


class Script:
    """An engine that writes given texts."""

    def __init__(self, texts):
        self.texts = iter(texts)

    async def generate(self, request_id, **_):
        ids = TOKENIZER.encode(next(self.texts), add_special_tokens=False)
        end = TOKENIZER.eos_token_id
        return TokenOutput(token_ids=[*ids, end], log_probs=[-0.5] * (len(ids) + 1))


@pytest.fixture(scope="module")
def nano():
    port = free_port()
    with served(str(ROOT / "examples" / "token_server.py"), str(port), port=port) as url:
        yield Engine(url)


@pytest.fixture
def sandbox(monkeypatch):
    opened = FailingSandbox()
    monkeypatch.setattr(verl_loop, "_host", lambda own: EpisodeHost(own, sandbox=opened))
    yield opened
    opened.close()


def page_config():
    """Return the entry of the page's file for ``agent_loop_config_path``."""
    page = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
    (config,) = yaml.safe_load(page.split("## verl\n")[1].split("```yaml\n")[1].split("```")[0])
    return {name: value for name, value in config.items() if name != "name"}


def make_loop(engine, config):
    """Make an agent loop as verl's worker does, for one trajectory."""
    rollout = {"response_length": 2048, "prompt_length": 512}
    whole = OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}, "data": {}})
    return hydra.utils.instantiate(
        config=config,
        trainer_config=DictConfigWrap(whole),
        server_manager=engine,
        tokenizer=TOKENIZER,
        processor=Processor(),
        dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(OmegaConf.create({})),
    )


def play(engine, tasks, **settings):
    """Run a loop for each task, all at the same time; return their outputs."""

    async def run():
        rows = [dataset_row(task) for task in tasks]
        loops = [make_loop(engine, page_config() | settings) for _ in rows]
        runs = [one.run({"temperature": 1.0}, **row) for one, row in zip(loops, rows, strict=True)]
        return await asyncio.gather(*runs)

    return asyncio.run(run())


def tasks(count):
    return EpisodeHost(HostSettings(families=("bars", "digit"))).tasks(count)


def test_the_lines_of_the_page_give_a_first_reward(tmp_path):
    names = execute(ROWS)
    pandas.DataFrame(names["rows"]).to_parquet(tmp_path / "rows.parquet")
    back = pandas.read_parquet(tmp_path / "rows.parquet").to_dict("records")
    task = names["tasks"][0]
    program = FAMILIES[task.family].programs(task.question)["exact"]
    texts = [f"<code>\n```python\n{program}\n```\n</code>", f"<answer>{task.answer}</answer>"]

    async def run():
        return await make_loop(Script(texts), page_config()).run({}, **back[0])

    output = asyncio.run(run())
    after = execute(AFTER, output=output)
    say("a first reward:", after["reward"], after["evidence"]["reward_terms"])
    assert after["evidence"]["reward_terms"]["accuracy"] == 1.0
    assert after["reward"] == sum(after["evidence"]["reward_terms"].values())


def test_its_outputs_are_exact_and_masked(nano, sandbox):
    outputs = play(nano, tasks(12), **NANO)
    say("rewards:", [round(one.reward_score, 3) for one in outputs])
    assert any(len(one.multi_modal_data["images"]) > 1 for one in outputs)  # code returned one
    counted = Processor.image_processor.merge_size**2
    for one in outputs:
        tensors = one.as_dict()
        shape = tensors["responses"].shape
        assert tensors["response_mask"].shape == tensors["rollout_log_probs"].shape == shape
        is_own = tensors["response_mask"].bool()
        assert (tensors["rollout_log_probs"][~is_own] == 0).all()
        assert (tensors["rollout_log_probs"][is_own] <= 0).all()
        images = one.multi_modal_data["images"]
        grids = Processor.image_processor(images=images, return_tensors="pt")["image_grid_thw"]
        count = int((grids.prod(dim=1) // counted).sum())
        assert (one.prompt_ids + one.response_ids).count(IMAGE) == count
        assert one.reward_score == pytest.approx(sum(one.extra_fields["reward_terms"].values()))


def batch_of(outputs, groups):
    """Return what verl's trainer makes of outputs, as far as advantage and loss need it."""
    longest = max(len(one.response_ids) for one in outputs)
    mask = torch.zeros(len(outputs), longest)
    rewards = torch.zeros(len(outputs), longest)
    for row, one in enumerate(outputs):
        mask[row, : len(one.response_mask)] = torch.tensor(one.response_mask)
        rewards[row, len(one.response_ids) - 1] = one.reward_score
    uid = np.array(groups, dtype=object)
    return verl.DataProto.from_single_dict(
        {"response_mask": mask, "token_level_rewards": rewards, "uid": uid}
    )


def advantages_of(outputs, groups, estimator):
    """Return the batch with the advantages that verl computes with an estimator."""
    data = compute_advantage(batch_of(outputs, groups), estimator, config=OmegaConf.create({}))
    return data.batch


def test_a_lost_episode_is_no_part_of_verls_advantages_and_loss(nano, sandbox):
    asked = [task for task in tasks(4) for _ in range(6)]
    sandbox.fails = lambda seed: seed % 3 == 0
    outputs = play(nano, asked, **NANO)
    is_lost = torch.tensor([not one.extra_fields["is_valid"] for one in outputs])
    assert 0 < is_lost.sum() < len(outputs)  # those that answer without code are not lost

    groups = [task.id for task in asked]
    ours, theirs = (advantages_of(outputs, groups, name) for name in ("codedance_grpo", "grpo"))
    advantages, mask = ours["advantages"], ours["response_mask"]
    assert not mask[is_lost].any()
    assert not advantages[is_lost].any()
    for group in set(groups):
        rows = [row for row, one in enumerate(groups) if one == group and not is_lost[row]]
        scores = torch.tensor([outputs[row].reward_score for row in rows])
        expected = torch.zeros(len(rows))
        if len(rows) > 1:
            expected = (scores - scores.mean()) / (scores.std() + 1e-6)
        for row, value in zip(rows, expected, strict=True):
            own = advantages[row][mask[row].bool()]
            assert torch.allclose(own, value.expand(len(own)), atol=1e-4)
    # verl's own estimator counts the 0 of a lost trajectory.
    assert not torch.allclose(theirs["advantages"], advantages)

    for mode in ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean"):
        losses = torch.rand(mask.shape)
        kept = ~is_lost
        whole = agg_loss(losses, mask, mode)
        assert torch.allclose(whole, agg_loss(losses[kept], mask[kept], mode))


def test_without_losses_our_estimator_is_verls(nano, sandbox):
    asked = [task for task in tasks(3) for _ in range(4)]
    outputs = play(nano, asked, **NANO)
    groups = [task.id for task in asked]
    ours, theirs = (advantages_of(outputs, groups, name) for name in ("codedance_grpo", "grpo"))
    assert torch.equal(ours["advantages"], theirs["advantages"])


def test_an_aborted_request_loses_the_episode(sandbox):
    class Aborts:
        async def generate(self, request_id, **_):
            return TokenOutput(token_ids=[], log_probs=[], stop_reason="aborted")

    (output,) = play(Aborts(), tasks(1), **NANO)
    assert output.extra_fields["is_valid"] is False
    assert not any(output.response_mask)
