"""The baselines of a suite: figures by hand, and a blind model that gets no image."""

from dataclasses import replace

import pytest
from codedance.envs.suites.nano.suite import FAMILIES, make_task
from codedance.envs.types import Difficulty, Ending, Message, Trajectory
from codedance.policies import load_policy
from codedance.policies.interface import Conversation, Reply, Sampling
from codedance.policies.training.sft import SFTConfig
from codedance.sandbox import open_sandbox

from experiments.no_code import (
    BlindPolicy,
    as_markdown,
    judge,
    tabulate,
    train_baselines,
    without_pictures,
)


class Recorder:
    """A policy that records its input."""

    id = "recorder"

    def __init__(self):
        self.shown = []

    def reply(self, conversations, *, sampling):
        self.shown += [list(conversation.messages) for conversation in conversations]
        return [Reply("<answer>1</answer>") for _ in conversations]


def answered(task, accuracy):
    return Trajectory(task.id, "x", 0, (), (), Ending.ANSWERED, accuracy)


def test_a_blind_policy_gets_the_question_and_no_image():
    task = make_task("bars", Difficulty.EASY, "test", 1)
    inner = Recorder()
    talk = Conversation([Message("user", (*task.images, task.question))], 0)
    BlindPolicy(inner).reply([talk], sampling=Sampling())
    assert inner.shown[0][0].parts == (task.question,)
    assert talk.messages[0].images == task.images


def test_texts_keep_their_order_without_the_images():
    task = make_task("bars", Difficulty.EASY, "test", 1)
    message = Message("user", ("a", *task.images, "b"))
    assert without_pictures(message).parts == ("a", "b")


def test_shares_are_computed_per_cell():
    base = [make_task("area", Difficulty.HARD, "test", seed) for seed in range(4)]
    test = [replace(task, answer=answer) for task, answer in zip(base, "aabc", strict=True)]
    train = [replace(task, answer=answer) for task, answer in zip(base, "bbba", strict=True)]
    right = [answered(task, accuracy) for task, accuracy in zip(test, (1, 1, 1, 0), strict=True)]
    (row,) = tabulate(train, test, {"no tools": right})
    assert (row.family, row.difficulty, row.count) == ("area", "hard", 4)
    assert row.majority == 0.25
    assert row.models == {"no tools": 0.75}
    assert row.chance == FAMILIES["area"].chance == 0.2
    assert row.excess == pytest.approx(55.0)
    assert "| area | hard | 4 | 20 % | 25 % | 75 % |" in as_markdown([row])


@pytest.mark.slow
def test_both_models_are_trained_and_evaluated(tmp_path):
    tasks = [make_task("area", Difficulty.EASY, "train", seed) for seed in range(8)]
    config = SFTConfig(steps=2, batch_size=4)
    with open_sandbox("local") as sandbox:
        for name, checkpoint in train_baselines(tasks, config, tmp_path):
            policy = BlindPolicy(load_policy(str(checkpoint)))
            trajectories = judge(policy, tasks[:2], sandbox=sandbox)
            assert [t.task_id for t in trajectories] == [task.id for task in tasks[:2]]
            assert all(t.is_valid for t in trajectories), name
    assert {path.name for path in tmp_path.iterdir()} == {"blind", "no-tools"}
