"""A teacher on vLLM scores what one in this process does; each fault loses one trajectory."""

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from codedance.policies.inference.vllm.settings import VllmSettings
from codedance.policies.interface import PolicyUnavailableError
from codedance.policies.models.token_model import TokenModel
from codedance.policies.training.grpo.distillation.served_teacher import (
    ServedTeacher,
    TeacherServers,
)
from codedance.policies.training.grpo.distillation.shared_tokens import TeacherMismatchError
from codedance.policies.training.grpo.distillation.teacher import LocalTeacher, OwnIds

from ...inference.vllm.fake_vllm import FakeVllm

Answer = dict[str, Any]


def served(
    model: TokenModel, *fakes: FakeVllm, at_once: int = 64, **settings: Any
) -> ServedTeacher:
    quick = VllmSettings(**{"max_retries": 1, "patience_seconds": 0.5, **settings})
    servers = TeacherServers(tuple(one.url for one in fakes), quick, at_once)
    return ServedTeacher(model.encoder, servers, name="big", temperature=1.0)


def own_place(trajectories: list[OwnIds]) -> tuple[int, str]:
    """Return the place of the first own id of the first trajectory, and the id."""
    place = trajectories[0].completion_mask.index(True)
    return place, str(trajectories[0].source.ids[place])


def lost(teacher: ServedTeacher, trajectories: list[OwnIds]) -> str:
    (found,) = teacher.score(trajectories[:1])
    assert found.values is None
    return found.reason


def test_scores_are_those_of_the_same_model_in_this_process(
    fake, tiny_model, teacher_model, trajectories, monkeypatch
):
    """A served one keeps the probability of ids that are never sampled: without any, both agree."""
    monkeypatch.setattr(type(tiny_model.encoder), "forbidden_ids", ())
    local = LocalTeacher(teacher_model, name="big", temperature=1.0, max_tokens=4096)
    for one, other in zip(
        served(tiny_model, fake).score(trajectories), local.score(trajectories), strict=True
    ):
        torch.testing.assert_close(one.values, other.values, atol=1e-4, rtol=0)
    assert [body["sampling_params"]["max_tokens"] for body in fake.bodies] == [1, 1, 1]
    assert all(len(body["content_parts"]) == 2 for body in fake.bodies)


def test_scores_differ_from_the_local_ones_by_a_constant_of_the_context(
    fake, tiny_model, teacher_model, trajectories
):
    local = LocalTeacher(teacher_model, name="big", temperature=1.0, max_tokens=4096)
    (one, *_), (other, *_) = (
        each.score(trajectories) for each in (served(tiny_model, fake), local)
    )
    assert (one.values <= other.values + 1e-5).all()
    assert (one.values - other.values).abs().max() > 1e-3


FAULTS: dict[str, tuple[Callable[[Answer, int, str], Any], str, int]] = {
    "another prompt": (
        lambda a, *_: a["prompt_token_ids"].__setitem__(7, 0),
        "another prompt.* from id 7 on",
        1,
    ),
    "no scores": (lambda a, *_: a.update(prompt_logprobs=None), "expected prompt_logprobs", 2),
    "one missing": (
        lambda a, *_: a["prompt_logprobs"].pop() and None,
        "expected prompt_logprobs of",
        2,
    ),
    "that of another id": (
        lambda a, place, _: a["prompt_logprobs"].__setitem__(place, {"0": {"logprob": -1.0}}),
        "no log-probability of id",
        2,
    ),
    "minus infinity": (
        lambda a, place, token: a["prompt_logprobs"][place][token].update(logprob=-9999.0),
        "no log-probability of id",
        2,
    ),
    "not a number": (
        lambda a, place, token: a["prompt_logprobs"][place][token].update(logprob=float("nan")),
        "no log-probability of id",
        2,
    ),
    "above 0": (
        lambda a, place, token: a["prompt_logprobs"][place][token].update(logprob=0.5),
        "no log-probability of id",
        2,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_wrong_answer_loses_the_trajectory_and_is_never_a_number(
    fake, tiny_model, trajectories, name
):
    change, words, requests = FAULTS[name]
    place, token = own_place(trajectories)
    fake.faults.change = lambda _, answer: change(answer, place, token) and None
    assert re.search(words, lost(served(tiny_model, fake), trajectories))
    assert len(fake.bodies) == requests


def test_one_failed_trajectory_leaves_the_others(fake, tiny_model, trajectories):
    fake.faults.status = lambda number, _: (400, "at most 1 image") if number == 1 else None
    found = served(tiny_model, fake, at_once=1).score(trajectories)
    assert [one.values is None for one in found] == [False, True, False]
    assert "HTTP 400: at most 1 image" in found[1].reason
    assert fake.most == 1


def test_failing_server_is_asked_again_within_bounds(fake, tiny_model, trajectories):
    fake.faults.status = lambda *_: (500, "EngineDeadError")
    assert "HTTP 500: EngineDeadError" in lost(served(tiny_model, fake), trajectories)
    assert len(fake.bodies) == 2
    fake.faults.status = lambda number, _: (500, "") if number == 2 else None
    (found,) = served(tiny_model, fake).score(trajectories[:1])
    assert found.values is not None


def test_hanging_server_is_left_after_the_time_out(fake, tiny_model, trajectories):
    released = threading.Event()
    fake.faults.before = lambda *_: released.wait(30.0)
    try:
        teacher = served(tiny_model, fake, timeout_seconds=0.2, max_retries=0)
        assert "no answer within 0.2 s" in lost(teacher, trajectories)
    finally:
        released.set()


def test_another_server_takes_over_for_a_dead_one(fake, tiny_model, teacher_model, trajectories):
    with FakeVllm(teacher_model) as other:
        teacher = served(tiny_model, fake, other)
        teacher.check()
        fake.kill()
        found = teacher.score(trajectories)
    assert all(one.values is not None for one in found)
    assert len(other.bodies) >= 4


def test_trajectory_beyond_the_servers_context_is_lost_and_says_so(
    teacher_model, tiny_model, trajectories
):
    length = len(trajectories[0].source.ids)
    with FakeVllm(teacher_model, context=length) as fake:
        first, *_ = served(tiny_model, fake).score(trajectories)
    assert first.values is None
    assert f"{length} tokens and one new one do not fit" in first.reason
    assert fake.bodies == []


def test_servers_are_checked_before_the_training(fake, tiny_model, teacher_model):
    served(tiny_model, fake).check()
    with FakeVllm(teacher_model) as other:
        other.faults.change = lambda _, answer: answer["prompt_token_ids"].__setitem__(7, 0)
        with pytest.raises(TeacherMismatchError, match=r"cannot score its tokens.*another prompt"):
            served(tiny_model, fake, other).check()


def test_a_server_that_is_away_is_done_without_unless_all_are(fake, tiny_model, teacher_model):
    other = FakeVllm(teacher_model)
    other.kill()
    served(tiny_model, fake, other).check()
    with pytest.raises(PolicyUnavailableError, match="no server of the teacher big can be used: "):
        served(tiny_model, other).check()


def test_other_temperatures_are_refused(tiny_model):
    servers = TeacherServers(("http://127.0.0.1:1",))
    with pytest.raises(ValueError, match=r"need a grpo\.temperature of 1\.0, got 0\.7"):
        ServedTeacher(tiny_model.encoder, servers, name="big", temperature=0.7)
