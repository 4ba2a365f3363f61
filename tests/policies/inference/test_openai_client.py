import asyncio
import base64
import io
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
from codedance.envs.types import Message
from codedance.policies import load_policy, rollout
from codedance.policies.inference.endpoint import Endpoint, Meter
from codedance.policies.inference.openai_client import OpenAIPolicy
from codedance.policies.inference.partial_replies import PartialRepliesError
from codedance.policies.interface import (
    PolicyRefusedError,
    PolicyUnavailableError,
    Sampling,
)
from codedance.sandbox.types import Sandbox
from PIL import Image

from ..players import task
from ..tiny import noise
from .chat_server import Answer, Server, asks, completion, policy_of


def test_the_whole_conversation_is_sent_and_the_reply_is_returned(server: Server):
    policy, _ = policy_of(server, api_key="secret")
    one = asks("How many?")
    one.messages.insert(0, Message("system", ("Be brief.",)))
    sampling = Sampling(temperature=0.5, top_p=0.9, max_new_tokens=33)
    (reply,) = policy.reply([one], sampling=sampling)
    assert (reply.text, reply.is_cut, reply.new_tokens) == ("hello", False, 7)
    path, body, headers = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == (
        "m",
        0.5,
        0.9,
        33,
    )
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    picture, text = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "How many?"}
    data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(noise(0)))


def test_replies_keep_the_order_of_the_conversations(server: Server):
    server.answer = lambda body: completion(body["messages"][0]["content"][1]["text"])
    policy, _ = policy_of(server)
    texts = [str(index) for index in range(20)]
    replies = policy.reply([asks(text) for text in texts], sampling=Sampling())
    assert [reply.text for reply in replies] == texts


def test_reply_at_the_token_limit_is_cut(server: Server):
    server.answer = lambda _: completion("half", "length")
    assert policy_of(server)[0].reply([asks("q")], sampling=Sampling())[0].is_cut


def test_empty_content_is_an_empty_text(server: Server):
    server.answer = lambda _: completion(None)
    assert policy_of(server)[0].reply([asks("q")], sampling=Sampling())[0].text == ""


def test_busy_server_is_retried_after_the_requested_time(server: Server):
    answers = iter([(429, {"Retry-After": "3"}, ""), (503, {}, ""), completion("at last")])
    server.answer = lambda _: next(answers)
    policy, waits = policy_of(server)
    assert policy.reply([asks("q")], sampling=Sampling())[0].text == "at last"
    assert waits == [3.0, 1.0]


def test_server_that_reports_busy_in_a_successful_response_is_retried(server: Server):
    busy = json.dumps({"error": {"message": "overloaded", "code": 503}})
    answers = iter([(200, {}, busy), completion("at last")])
    server.answer = lambda _: next(answers)
    policy, waits = policy_of(server)
    assert policy.reply([asks("q")], sampling=Sampling())[0].text == "at last"
    assert waits == [0.5]
    server.answer = lambda _: (200, {}, busy)
    with pytest.raises(PartialRepliesError, match="overloaded"):
        policy.reply([asks("q")], sampling=Sampling())


def test_half_a_character_in_a_question_or_a_reply_is_replaced_by_its_escape(server: Server):
    server.answer = lambda _: completion("<answer>5 \ud83d</answer>")
    policy, _ = policy_of(server)
    (reply,) = policy.reply([asks("How \ud83d?")], sampling=Sampling())
    assert reply.text == "<answer>5 \\ud83d</answer>"
    assert server.requests[0][1]["messages"][0]["content"][1]["text"] == "How \\ud83d?"


def test_retries_of_a_busy_server_are_bounded(server: Server):
    server.answer = lambda _: (429, {}, "slow down")
    policy, waits = policy_of(server, max_retries=3)
    with pytest.raises(PartialRepliesError, match="HTTP 429: slow down"):
        policy.reply([asks("q")], sampling=Sampling())
    assert len(server.requests) == 4
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    "answer",
    [
        (401, {}, "no such key"),
        (200, {}, "<html>"),
        (200, {}, '{"choices": []}'),
        (200, {}, '{"choices": [{"message": null}]}'),
        (200, {}, "[" * 100_000),
        (200, {}, '{"error": {"message": "no such model", "code": 404}}'),
        completion([{"type": "refusal", "refusal": "I will not."}]),
        completion(5),
    ],
)
def test_permanent_error_is_an_infrastructure_failure_without_a_retry(
    server: Server, answer: Answer
):
    server.answer = lambda _: answer
    policy, _ = policy_of(server, api_key="secret")
    with pytest.raises(PartialRepliesError) as caught:
        policy.reply([asks("q")], sampling=Sampling())
    assert len(server.requests) == 1
    assert "secret" not in str(caught.value)


def test_unreachable_server_is_an_infrastructure_failure(server: Server):
    policy = OpenAIPolicy(
        "m", base_url="http://127.0.0.1:9", endpoint=Endpoint(max_retries=1), sleep=lambda _: None
    )
    with pytest.raises(PartialRepliesError, match="ConnectError"):
        policy.reply([asks("q")], sampling=Sampling())


def test_one_lost_conversation_does_not_lose_the_others(server: Server, sandbox: Sandbox):
    def answer(body: dict[str, Any]) -> Answer:
        is_first = body["messages"][-1]["content"][1]["text"] == "lost"
        return (400, {}, "no") if is_first else completion("<answer>5</answer>")

    server.answer = answer
    policy, _ = policy_of(server)
    with pytest.raises(PartialRepliesError) as caught:
        policy.reply([asks("lost"), asks("kept")], sampling=Sampling())
    lost, kept = caught.value.replies
    assert lost is None
    assert kept is not None
    assert kept.text == "<answer>5</answer>"


def test_policy_loaded_by_name_and_address_plays_episodes(server: Server, sandbox: Sandbox):
    server.answer = lambda _: completion("<think>t</think>\n<answer>5</answer>")
    policy = load_policy("big", base_url=server.url, api_key="secret")
    (found,) = rollout(policy, [task()], sandbox=sandbox)
    assert found.accuracy == 1.0
    assert found.tokens is None
    assert found.policy_id == f"big@{server.url.split('/')[2]}"
    assert server.requests[0][1]["messages"][0]["role"] == "system"


def test_key_is_read_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    policy_of(server)[0].reply([asks("q")], sampling=Sampling())
    assert server.requests[0][2]["Authorization"] == "Bearer from-environment"


def test_same_episode_sends_the_same_seed(server: Server):
    policy, _ = policy_of(server)
    for seed in (1, 1, 2):
        policy.reply([asks("q", seed)], sampling=Sampling())
    seeds = [body["seed"] for _, body, _ in server.requests]
    assert seeds[0] == seeds[1] != seeds[2]


def test_retry_after_may_be_a_date(server: Server):
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    answers = iter([(429, {"Retry-After": then}, ""), completion("late")])
    server.answer = lambda _: next(answers)
    policy, waits = policy_of(server)
    assert policy.reply([asks("q")], sampling=Sampling())[0].text == "late"
    assert 30.0 < waits[0] <= 40.0


def test_a_retry_after_of_an_hour_is_not_waited_for(server: Server):
    server.answer = lambda _: (429, {"Retry-After": "3600"}, "come tomorrow")
    policy, waits = policy_of(server)
    with pytest.raises(PartialRepliesError, match="come tomorrow"):
        policy.reply([asks("q")], sampling=Sampling())
    assert (len(server.requests), waits) == (1, [])


def test_server_without_a_response_is_retried(server: Server):
    pauses = iter([3.0, 0.0])

    def answer(_: object) -> Answer:
        time.sleep(next(pauses))
        return completion("awake")

    server.answer = answer
    policy, waits = policy_of(server, timeout_seconds=1.5)
    assert policy.reply([asks("q")], sampling=Sampling())[0].text == "awake"
    assert (len(server.requests), waits) == (2, [0.5])
    assert (policy.usage.requests, policy.usage.retries) == (2, 1)


def test_tokens_and_cost_are_added_up(server: Server):
    body = json.loads(completion("x")[2]) | {
        "usage": {"prompt_tokens": 1000, "completion_tokens": 50}
    }
    server.answer = lambda _: (200, {}, json.dumps(body))
    policy, _ = policy_of(server, price_input=2.0, price_output=10.0)
    policy.reply([asks("q"), asks("r")], sampling=Sampling())
    usage = policy.usage
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (2, 2000, 100)
    assert usage.cost == pytest.approx(0.005)
    assert str(usage) == "2 requests, 2,000 tokens read, 100 written, cost 0.0050"


class Clock:
    """A clock that advances only during sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_requests_per_minute_are_limited():
    clock = Clock()
    meter = Meter(Endpoint(requests_per_minute=3), sleep=clock.sleep, clock=clock)
    times: list[float] = []
    for _ in range(7):
        asyncio.run(meter.enter(0.0))
        times.append(clock.now)
        clock.now += 1.0
    assert times == [0.0, 1.0, 2.0, 60.0, 61.0, 62.0, 120.0]


def test_tokens_per_minute_are_limited_by_the_servers_own_count():
    clock = Clock()
    meter = Meter(Endpoint(tokens_per_minute=100), sleep=clock.sleep, clock=clock)
    first = asyncio.run(meter.enter(90.0))
    meter.leave(first, read=30, written=10)  # less than expected: another may start
    asyncio.run(meter.enter(60.0))
    assert clock.now == 0.0
    asyncio.run(meter.enter(10.0))
    assert clock.now == 60.0
    alone = Meter(Endpoint(tokens_per_minute=100), sleep=clock.sleep, clock=clock)
    asyncio.run(alone.enter(5000.0))  # larger than the limit by itself
    assert clock.now == 60.0


def test_policy_by_prefix_needs_an_address(monkeypatch: pytest.MonkeyPatch, server: Server):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ValueError, match="--base-url"):
        load_policy("openai:m")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    assert load_policy("openai:m").id.startswith("m@127.0.0.1:")
    assert load_policy("openai:m", endpoint=Endpoint(base_url="http://h:1/v1")).id == "m@h:1"


def test_the_first_rejection_ends_its_batch(server: Server):
    server.answer = lambda _: (401, {}, '{"error": {"message": "no such key"}}')
    policy, _ = policy_of(server, concurrency=1)
    with pytest.raises(PartialRepliesError, match=r"20 of 20 .*HTTP 401: no such key") as caught:
        policy.reply([asks(str(n)) for n in range(20)], sampling=Sampling())
    assert len(server.requests) == 1
    assert all(isinstance(error, PolicyRefusedError) for error in caught.value.errors)
    with pytest.raises(PartialRepliesError):
        policy.reply([asks("later")], sampling=Sampling())
    assert len(server.requests) == 2  # another call retries: the key may have been fixed


@pytest.mark.parametrize(
    ("error", "kind", "requests"),
    [
        ({"error": {"message": "no such key", "code": 401}}, PolicyRefusedError, 1),
        ({"object": "error", "message": "no such model", "code": 404}, PolicyRefusedError, 1),
        ({"error": {"message": "too long", "code": 400}}, PolicyUnavailableError, 3),
    ],
)
def test_an_error_in_a_successful_response_counts_as_its_status(
    server: Server, error: dict[str, Any], kind: type[Exception], requests: int
):
    server.answer = lambda _: (200, {}, json.dumps(error))
    policy, _ = policy_of(server, concurrency=1)
    with pytest.raises(PartialRepliesError) as caught:
        policy.reply([asks(str(n)) for n in range(3)], sampling=Sampling())
    assert len(server.requests) == requests
    assert all(isinstance(error, kind) for error in caught.value.errors)


def test_an_invalid_retry_after_is_ignored(server: Server):
    answers = iter([(429, {"Retry-After": "nan"}, ""), completion("at last")])
    server.answer = lambda _: next(answers)
    policy, waits = policy_of(server)
    assert policy.reply([asks("q")], sampling=Sampling())[0].text == "at last"
    assert waits == [0.5]


def test_half_a_character_in_a_models_name_is_rejected_immediately(server: Server):
    with pytest.raises(ValueError, match=r"name holds \\ud83d, half of a character"):
        OpenAIPolicy("m\ud83d", base_url=server.url)


def test_a_rejection_after_a_reply_affects_only_its_conversation(server: Server):
    answers = iter([completion("a"), (404, {}, "a flake"), completion("c")])
    server.answer = lambda _: next(answers)
    policy, _ = policy_of(server, concurrency=1)
    with pytest.raises(PartialRepliesError) as caught:
        policy.reply([asks("1"), asks("2"), asks("3")], sampling=Sampling())
    texts = [reply and reply.text for reply in caught.value.replies]
    assert texts == ["a", None, "c"]


def test_one_bad_request_does_not_affect_others(server: Server):
    answers = iter([(400, {}, "too long"), completion("b")])
    server.answer = lambda _: next(answers)
    policy, _ = policy_of(server, concurrency=1)
    with pytest.raises(PartialRepliesError) as caught:
        policy.reply([asks("1"), asks("2")], sampling=Sampling())
    assert [reply and reply.text for reply in caught.value.replies] == [None, "b"]


def test_a_server_that_never_answered_is_waited_for_only_once(server: Server):
    server.answer = lambda _: (503, {}, "starting")
    policy, waits = policy_of(server, concurrency=1, max_retries=3)
    with pytest.raises(PartialRepliesError, match="HTTP 503: starting"):
        policy.reply([asks(str(n)) for n in range(10)], sampling=Sampling())
    assert len(server.requests) == 4 + 9
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": {"message": "bad key: sk-secret-1"}}', "bad key: ***"),
        ('{"detail": "bad\\nkey"}', "bad key"),
        ('{"error": "flat"}', "flat"),
        ('{"message": "plain"}', "plain"),
        ('{"other": 1}', '{"other": 1}'),
        ("text with sk-secret-1 and \x1b[31m", "text with *** and [31m"),
        ("x" * 5000, "x" * 200),
        ("x" * 290 + " sk-secret-1", "x" * 200),  # cut within the key
        (json.dumps({"detail": "x" * 289 + " sk-secret-1"}), "x" * 200),
        ("", "Unauthorized"),
    ],
)
def test_a_rejection_is_reported_briefly_and_without_the_key(server: Server, body: str, words: str):
    server.answer = lambda _: (401, {}, body)
    policy, _ = policy_of(server, api_key="sk-secret-1\n")
    with pytest.raises(PartialRepliesError) as caught:
        policy.reply([asks("q")], sampling=Sampling())
    message = str(caught.value)
    assert f"HTTP 401: {words}" in message
    assert "secret" not in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "x" * 290 + " sk-secret-1", "code": 401}},
        {"choices": [], "note": "x" * 270 + " sk-secret-1"},
        "x" * 285 + " sk-secret-1",
    ],
)
def test_a_key_is_hidden_if_the_message_is_cut_within_it(server: Server, body: object):
    text = body if isinstance(body, str) else json.dumps(body)
    server.answer = lambda _: (200, {}, text)
    policy, _ = policy_of(server, api_key="sk-secret-1")
    with pytest.raises(PartialRepliesError) as caught:
        policy.reply([asks("q")], sampling=Sampling())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://h/v1", "http://", "http://h:port/v1", "http://h /v1", "v1"]
)
def test_an_invalid_address_is_rejected_immediately(url: str):
    with pytest.raises(ValueError, match="not a server address"):
        OpenAIPolicy("m", base_url=url)


def test_credentials_in_an_address_and_an_invalid_key_are_not_shown():
    with pytest.raises(ValueError, match="no HTTP header") as caught:
        OpenAIPolicy("m", base_url="http://h/v1", api_key="schl\u00fcssel-1")
    assert "ssel-1" not in str(caught.value)
    policy = OpenAIPolicy(
        "m",
        base_url="http://me:hunter22@127.0.0.1:9/v1",
        endpoint=Endpoint(max_retries=0),
        sleep=lambda _: None,
    )
    with pytest.raises(PartialRepliesError) as gone:
        policy.reply([asks("q")], sampling=Sampling())
    assert "hunter22" not in str(gone.value)
