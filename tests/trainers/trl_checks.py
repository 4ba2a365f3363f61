"""TRL 1.16: its GRPOTrainer, its loss and its optimizer on our episodes."""

import math

import pytest
import torch
from codedance.envs.rewards.terms import is_scored
from codedance.policies import load_policy
from trl import GRPOConfig
from trl_grpo import SIBLINGS, make_trainer

from trainers.page import FailingSandbox, blocks_of, execute, say, trains

LINES, AFTER = blocks_of("TRL")


@pytest.fixture(scope="module")
def policy():
    return load_policy("nano")


@pytest.fixture(scope="module")
def sandbox():
    opened = FailingSandbox()
    yield opened
    opened.close()


@pytest.fixture
def trainer(policy, sandbox, tmp_path):
    return make_trainer(policy, sandbox, steps=1, folder=str(tmp_path), seed=0)


def batch_of(trainer):
    """Return TRL's batch for its first generation, with the trajectories in it."""
    inputs = [dict(row) for row in next(iter(trainer.get_train_dataloader()))]
    trainer.model.train()
    batch = trainer._generate_and_score_completions(inputs)
    return batch, [row["trajectory"] for row in inputs]


def gradients(trainer, batch):
    """Return TRL's loss of a batch and its gradient, as within a step."""
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.detach(), [
        one.grad.clone() for one in trainer.model.parameters() if one.requires_grad
    ]


def test_the_lines_of_the_page_give_a_first_reward(policy, tmp_path):
    config = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        num_generations=4,
        learning_rate=1e-5,
        beta=0.0,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
    )
    tokenizer = policy.model.chat.tokenizer
    yours = {"model": policy.model.model, "processing_class": tokenizer, "args": config}
    names = execute(LINES, policy=policy, yours=yours)
    names["trainer"].train()
    names["host"].close()
    evidence = execute(AFTER, plays=names["plays"])["evidence"]
    say("a first reward:", evidence[0])
    assert len(evidence) == 4
    assert all(record["is_valid"] for record in evidence)


def test_ids_masks_and_images_reach_the_loss_as_they_were_played(trainer):
    batch, played = batch_of(trainer)
    assert sum(batch["num_images"]) > len(played)  # code returned some
    assert len(batch["image_grid_thw"]) == sum(batch["num_images"])
    ids, mask = batch["completion_ids"], batch["tool_mask"] * batch["completion_mask"]
    found, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([batch["prompt_ids"], ids], dim=1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
        ids.shape[1],
        pixel_values=batch["pixel_values"],
        image_grid_thw=batch["image_grid_thw"],
        num_images=batch["num_images"],
        mm_token_type_ids=batch["mm_token_type_ids"],
    )
    for row, one in enumerate(played):
        begin = one.tokens.mask.index(True)
        own = torch.tensor(one.tokens.mask[begin:])
        assert mask[row, : len(own)].bool().tolist() == own.tolist()
        assert ids[row, : len(own)].tolist() == list(one.tokens.ids[begin:])
        drawn = torch.tensor(one.tokens.log_probabilities[begin:])[own]
        assert torch.allclose(found[row, : len(own)][own], drawn, atol=2e-3)


def test_an_episode_lost_to_the_sandbox_is_no_part_of_trls_loss(trainer, sandbox):
    sandbox.fails = True
    batch, played = batch_of(trainer)
    sandbox.fails = False
    is_lost = torch.tensor([not is_scored(one) for one in played])
    assert 0 < is_lost.sum() < len(played)  # those that answer without code are not lost
    mask = batch["tool_mask"] * batch["completion_mask"]
    assert not batch["advantages"][is_lost].any()
    assert not mask[is_lost].any()
    assert batch["num_items_in_batch"] == mask.sum()

    rewards = trainer.rollout_func.score(played)
    assert [reward is None for reward in rewards] == is_lost.tolist()
    for start in range(0, len(played), SIBLINGS):
        group = [value for value in rewards[start : start + SIBLINGS] if value is not None]
        for row in range(start, start + SIBLINGS):
            if rewards[row] is not None and len(group) > 1:
                mean = sum(group) / len(group)
                std = math.sqrt(sum((value - mean) ** 2 for value in group) / (len(group) - 1))
                own = batch["advantages"][row][mask[row].bool()]
                assert own[-1].item() == pytest.approx(
                    (rewards[row] - mean) / (std + 1e-4), abs=1e-4
                )

    loss, before = gradients(trainer, batch)
    changed = batch["completion_ids"].clone()  # other texts in the lost episodes
    own = torch.tensor(
        [
            [token not in trainer.rollout_func.policy.model.chat.control_ids for token in row]
            for row in changed.tolist()
        ]
    )
    changed[is_lost[:, None] & own] = int(changed[~is_lost][mask[~is_lost].bool()][0])
    again, after = gradients(trainer, batch | {"completion_ids": changed})
    assert not torch.equal(changed, batch["completion_ids"])
    assert loss == again
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_with_it_raises_the_held_out_reward(seed):
    trains("trl_grpo.py", seed)
