"""The policy on vLLM fills in the same ids as our engine, and asks as the interface demands."""

import base64
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codedance.envs import load_suite
from codedance.envs.types import Tokens, WeightSpan
from codedance.policies import load_policy, rollout
from codedance.policies.inference.vllm.policy import VllmPolicy
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Sampling
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.model_folder import load_token_model, read_notes
from codedance.sandbox.types import Sandbox
from PIL import Image

from ...players import task
from ...tiny import noise
from .fake_vllm import FakeVllm
from .talks import TURN, asks, goes_on, policy_of

TRAINED = Path(NANO_FOLDER)


def assert_equal(ours: Tokens | None, theirs: Tokens | None) -> None:
    assert ours is not None
    assert theirs is not None
    assert theirs.ids == ours.ids
    assert theirs.turn_of == ours.turn_of
    assert theirs.images == ours.images
    np.testing.assert_allclose(theirs.log_probabilities, ours.log_probabilities, atol=1e-5)


@pytest.mark.parametrize("size", [(56, 56), (57, 91), (300, 40), (20, 20)])
def test_three_turns_with_images_are_those_of_our_engine(
    fake: FakeVllm, size: tuple[int, int]
) -> None:
    own = VisionLanguagePolicy(fake.model, policy_id="tiny")
    sampling = Sampling(max_new_tokens=12, max_tokens=2000)
    talks = [(asks(seed, size=size), asks(seed, size=size)) for seed in range(3)]
    for turn in range(3):
        ours = own.reply([one for one, _ in talks], sampling=sampling)
        theirs = policy_of(fake).reply([one for _, one in talks], sampling=sampling)
        assert ours == theirs
        for (one, other), reply in zip(talks, ours, strict=True):
            assert_equal(one.tokens, other.tokens)
            shown = noise(100 + turn, 28 * (turn + 1), 60)
            goes_on(one, reply.text, shown)
            goes_on(other, reply.text, shown)


def test_whole_episodes_with_code_are_those_of_our_engine(sandbox: Sandbox) -> None:
    model = load_token_model(TRAINED, device="cpu")
    suite = load_suite("nano", split="test")
    tasks = [suite[index] for index in range(4)]
    own = VisionLanguagePolicy(model, policy_id="nano", notes=read_notes(TRAINED))
    with FakeVllm(model) as fake:
        served = load_policy("nano", vllm_urls=[fake.url])
        theirs = rollout(served, tasks, sandbox=sandbox, samples=2, seed=3)
    ours = rollout(own, tasks, sandbox=sandbox, samples=2, seed=3)
    assert any(len(one.turns) > 1 for one in ours)
    assert {one.policy_id for one in theirs} == {"nano@vllm"}
    for one, other in zip(ours, theirs, strict=True):
        assert other.is_valid
        assert [turn.text for turn in other.turns] == [turn.text for turn in one.turns]
        assert (other.answer, other.accuracy) == (one.answer, one.accuracy)
        pairs = zip(one.opening, other.opening, strict=True)  # the notes' prompt and image size
        assert all(a.role == b.role and a.parts == b.parts for a, b in pairs)
        assert_equal(one.tokens, other.tokens)


def test_request_is_what_the_interface_demands(fake: FakeVllm) -> None:
    talk = asks(size=(57, 91))
    sampling = Sampling(0.7, 0.9, 5, max_new_tokens=12, max_tokens=400, stop=("</code>",))
    policy_of(fake).reply([talk], sampling=sampling)
    (body,) = fake.bodies
    assert body["token_ids"].count(fake.model.chat.image_id) == 1
    assert body["return_token_ids"] is True
    (part,) = body["content_parts"]
    assert part["type"] == "image_url"
    assert "uuid" not in part
    sent = Image.open(io.BytesIO(base64.b64decode(part["url"].split(",")[1])))
    assert sent.width % 28 == sent.height % 28 == 0
    params = body["sampling_params"]
    assert (params["temperature"], params["top_p"], params["top_k"]) == (0.7, 0.9, 5)
    assert (params["n"], params["max_tokens"], params["logprobs"]) == (1, 12, 0)
    assert params["stop"] == ["</code>"]
    assert params["include_stop_str_in_output"] is True
    assert set(map(int, params["logit_bias"])) == set(fake.model.encoder.forbidden_ids)
    assert fake.model.chat.image_id in fake.model.encoder.forbidden_ids
    assert len(params["logit_bias"]) <= 1024
    assert set(params["logit_bias"].values()) == {-100.0}
    assert params["stop_token_ids"] == [fake.model.chat.end_id]


def test_sent_image_is_what_our_model_sees(fake: FakeVllm) -> None:
    image = noise(5, 91, 57)
    pictures = fake.model.pictures
    sent = pictures.at_model_size(image)
    again = pictures.patches(sent)
    np.testing.assert_array_equal(again.values, pictures.patches(image).values)
    assert again.grid == pictures.patches(image).grid


def test_control_ids_are_not_sampled(fake: FakeVllm) -> None:
    talks = [asks(seed) for seed in range(6)]
    policy_of(fake).reply(talks, sampling=Sampling(2.0, max_new_tokens=60, max_tokens=2000))
    forbidden = set(fake.model.encoder.forbidden_ids)
    for talk in talks:
        assert talk.tokens is not None
        own = [i for i, turn in zip(talk.tokens.ids, talk.tokens.turn_of, strict=True) if turn >= 0]
        assert own
        assert not forbidden & set(own)


def test_version_of_the_weights_is_recorded_for_each_token(fake: FakeVllm) -> None:
    talk = asks()
    fake.engine.version = "step-1"
    policy = policy_of(fake)
    (first,) = policy.reply([talk], sampling=TURN)
    asked = len(talk.tokens.ids) - first.new_tokens if talk.tokens else 0
    goes_on(talk, first.text, noise(9))
    fake.engine.version = "step-2"
    (second,) = policy.reply([talk], sampling=TURN)
    assert talk.tokens is not None
    end = len(talk.tokens.ids)
    assert talk.tokens.weight_versions == (
        WeightSpan("step-1", asked, asked + first.new_tokens),
        WeightSpan("step-2", end - second.new_tokens, end),
    )
    own = [place for place, turn in enumerate(talk.tokens.turn_of) if turn >= 0]
    spans = talk.tokens.weight_versions
    assert own == [place for span in spans for place in range(span.start, span.end)]


@pytest.mark.parametrize("room", [0, -5])
def test_prompt_without_room_is_the_token_limit_and_is_not_asked(fake: FakeVllm, room: int) -> None:
    talk = asks()
    length = len(fake.model.chat.open_prompt(talk.messages))
    (reply,) = policy_of(fake).reply([talk], sampling=Sampling(max_tokens=length + room))
    assert (reply.text, reply.is_cut, reply.new_tokens) == ("", True, 0)
    assert talk.tokens is None
    assert not fake.bodies


@pytest.mark.parametrize("room", [0, 1, 7])
def test_context_of_the_server_is_the_token_limit_too(fake: FakeVllm, room: int) -> None:
    talk = asks()
    fake.context = fake.engine.context = len(fake.model.chat.open_prompt(talk.messages)) + room
    (reply,) = policy_of(fake).reply([talk], sampling=Sampling(max_tokens=4000))
    assert reply.is_cut
    assert reply.new_tokens == room
    assert len(fake.bodies) == (room > 0)


def test_context_is_that_of_the_served_model(fake: FakeVllm) -> None:
    talk = asks()
    length = len(fake.model.chat.open_prompt(talk.messages))
    fake.listed = [
        {"id": "nano", "max_model_len": length + 3},
        {"id": "embed", "max_model_len": 30},
        {"id": "adapters"},
    ]
    for settings, count in ((dict[str, str](), 3), ({"model": "nano"}, 3)):
        (reply,) = policy_of(fake, **settings).reply([asks()], sampling=Sampling(max_tokens=4000))
        assert reply.new_tokens == count
    (reply,) = policy_of(fake, model="embed").reply([asks()], sampling=TURN)
    assert (reply.is_cut, reply.new_tokens) == (True, 0)
    fake.listed = [{"id": "adapters"}]
    assert policy_of(fake).reply([asks()], sampling=TURN)[0].new_tokens == 12


def test_context_is_read_from_a_server_that_was_away_at_first(fake: FakeVllm) -> None:
    """Otherwise a prompt that is too long would be lost to infrastructure there."""
    talk = asks()
    fake.context = fake.engine.context = len(fake.model.chat.open_prompt(talk.messages))
    policy = policy_of(fake)
    fake.kill()
    threading.Timer(0.4, fake.restart).start()
    (reply,) = policy.reply([talk], sampling=Sampling(max_tokens=4000))
    assert (reply.is_cut, reply.new_tokens) == (True, 0)


def test_stop_text_ends_a_turn_as_in_our_engine(fake: FakeVllm) -> None:
    own = VisionLanguagePolicy(fake.model, policy_id="tiny")
    free = asks(4)
    sampling = Sampling(max_new_tokens=30, max_tokens=400)
    (whole,) = own.reply([free], sampling=sampling)
    stop = whole.text[5:8]
    sampling = Sampling(max_new_tokens=30, max_tokens=400, stop=(stop,))
    one, other = asks(4), asks(4)
    assert own.reply([one], sampling=sampling) == policy_of(fake).reply([other], sampling=sampling)
    assert_equal(one.tokens, other.tokens)


def test_an_episode_goes_on_while_another_waits_for_its_reply(
    fake: FakeVllm, sandbox: Sandbox
) -> None:
    """The first request is answered when all others have been, the second turns included."""
    others = threading.Event()

    def hold(number: int, body: dict[str, Any]) -> None:
        if number == 0:
            assert others.wait(60)
        elif len(fake.bodies) >= 8:
            others.set()

    fake.faults.before = hold
    tasks = [task(index) for index in range(8)]
    found = rollout(policy_of(fake), tasks, sandbox=sandbox, sampling=TURN, batch_size=8)
    assert all(one.is_valid for one in found)
    assert fake.most > 1


def test_a_seed_is_sent_unless_switched_off(fake: FakeVllm) -> None:
    policy_of(fake).reply([asks(1)], sampling=TURN)
    policy_of(fake).reply([asks(1)], sampling=TURN)
    policy_of(fake, seeds=False).reply([asks(1)], sampling=TURN)
    first, again, without = (body["sampling_params"] for body in fake.bodies)
    assert first["seed"] == again["seed"]
    assert "seed" not in without


def test_names_of_what_vllm_does_not_serve_are_rejected() -> None:
    for name in ("oracle", "random", "openai:gpt"):
        with pytest.raises(ValueError, match="vLLM serves model folders"):
            load_policy(name, vllm_urls=["http://127.0.0.1:1"])
    for urls in (["localhost:8000"], ["http://a:1", "http://a:1/v1"]):
        with pytest.raises(ValueError, match=r"server address|different vLLM servers"):
            load_policy("nano", vllm_urls=urls)


@pytest.mark.parametrize("temperature", [2.5, 0.001])
def test_temperature_that_vllm_would_change_is_rejected(fake: FakeVllm, temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperatures from 0\.01 to 2\.0"):
        policy_of(fake).reply([asks()], sampling=Sampling(temperature))
    assert not fake.bodies


def test_model_with_too_many_ids_to_exclude_is_rejected(fake: FakeVllm) -> None:
    from dataclasses import replace

    wide = replace(fake.model.encoder, vocabulary=fake.model.vocabulary + 1100)
    with pytest.raises(ValueError, match="logit_bias takes 1024"):
        VllmPolicy(wide, [fake.url], policy_id="wide")


def test_usage_counts_tokens_and_requests(fake: FakeVllm) -> None:
    def half(_: int, answer: dict[str, Any]) -> None:
        answer["usage"]["prompt_tokens_details"] = {"cached_tokens": 10}

    fake.faults.change = half
    policy = policy_of(fake)
    talk = asks()
    (reply,) = policy.reply([talk], sampling=TURN)
    assert talk.tokens is not None
    asked = len(talk.tokens.ids) - reply.new_tokens
    assert policy.usage.figures() == {
        "requests": 1.0,
        "retries": 0.0,
        "failures": 0.0,
        "prompt_tokens": float(asked),
        "cached_tokens": 10.0,
        "new_tokens": float(reply.new_tokens),
        "cached_share": 10.0 / asked,
    }
