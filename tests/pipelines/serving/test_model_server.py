"""The OpenAI-compatible server over real HTTP, with our own client and OpenAI's."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from codedance.envs.suites.nano.suite import NanoSuite
from codedance.envs.types import Message, Tokens
from codedance.pipelines.serving.batcher import Batcher
from codedance.pipelines.serving.model_server import ModelServer
from codedance.pipelines.serving.token_records import TokenRecords
from codedance.policies import load_policy, rollout
from codedance.policies.inference.endpoint import Endpoint
from codedance.policies.inference.openai_client import OpenAIPolicy
from codedance.policies.interface import Conversation, PolicyUnavailableError, Reply, Sampling
from codedance.sandbox import open_sandbox
from PIL import Image

GREEDY = Sampling(temperature=0.0, max_new_tokens=256)


class Echo:
    """Echoes the last question and records each batch; slow or unavailable on request."""

    id = "echo"

    def __init__(self, *, seconds=0.0):
        self.batches = []
        self.seconds = seconds
        self.is_away = False

    def reply(self, conversations, *, sampling):
        self.batches.append((list(conversations), sampling))
        time.sleep(self.seconds)
        if self.is_away:
            raise PolicyUnavailableError("the model is elsewhere")
        return [Reply(one.messages[-1].text, new_tokens=1) for one in conversations]


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def server(echo):
    with ModelServer(echo) as opened:
        yield opened


def data_url(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def post(server, **body):
    full = {"model": server.name, "messages": [{"role": "user", "content": "hello"}]} | body
    return httpx.post(f"{server.url}/chat/completions", json=full, timeout=30)


def test_a_completion_has_openais_format(server, echo):
    found = post(server, temperature=0.5, max_tokens=7, seed=3).json()
    assert found["object"] == "chat.completion"
    assert found["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hello"},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert found["usage"] == {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1}
    ((conversation,), sampling) = echo.batches[0]
    assert (conversation.seed, sampling.temperature, sampling.max_new_tokens) == (3, 0.5, 7)
    models = httpx.get(f"{server.url}/models").json()
    assert [one["id"] for one in models["data"]] == ["echo"]
    assert httpx.get(server.url.replace("/v1", "/health")).json() == {"status": "ok"}


def test_images_are_received_as_data_urls_exactly(server, echo):
    picture = Image.effect_noise((20, 11), 50).convert("RGB")
    content = [
        {"type": "image_url", "image_url": {"url": data_url(picture)}},
        {"type": "text", "text": "what?"},
    ]
    assert post(server, messages=[{"role": "user", "content": content}]).status_code == 200
    message = echo.batches[0][0][0].messages[-1]
    assert message.images[0].tobytes() == picture.tobytes()
    assert message.text == "what?"


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "messages"),
        ({"messages": ["x"]}, 400, "messages[0].role"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"temperature": -1}, 400, "temperature"),
        ({"n": 0}, 400, "n"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_completion_tokens": 1.5}, 400, "max_completion_tokens"),
        ({"stream": "please"}, 400, "stream"),
        ({"stream": True, "stream_options": "usage"}, 400, "stream_options"),
        ({"stop": list("abcde")}, 400, "stop"),
        ({"stop": ["x", ""]}, 400, "stop[1]"),
        ({"stop": [5]}, 400, "stop[0]"),
        ({"stop": 5}, 400, "stop"),
        ({"stop": "x" * 1001}, 400, "stop[0]"),
        ({"tools": [{}]}, 400, "tools"),
        ({"model": "other"}, 404, "model"),
    ],
)
def test_unsupported_requests_are_rejected_in_openais_format(server, echo, change, status, named):
    answer = post(server, **change)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, named)
    assert error["type"] == "invalid_request_error"
    assert named.split(".")[-1].split("[")[0] in error["message"]
    assert echo.batches == []


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1/a.png", "file:///etc/passwd", "data:image/png;base64,!", None]
)
def test_images_that_are_not_data_urls_are_rejected(server, address):
    content = [{"type": "image_url", "image_url": {"url": address}}]
    answer = post(server, messages=[{"role": "user", "content": content}])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages[0].content[0]"


def test_half_a_character_is_rejected_and_the_rest_of_the_batch_is_answered(server, echo):
    for content in ("How \ud83d?", [{"type": "text", "text": "\ud83d"}]):
        body = json.dumps({"messages": [{"role": "user", "content": content}]})
        answer = httpx.post(f"{server.url}/chat/completions", content=body, timeout=30)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["param"] == "messages[0].content[0]"
        assert "\\ud83d" in error["message"]
    assert echo.batches == []
    assert post(server).status_code == 200


def test_deep_json_and_letters_in_base64_are_answered(server):
    deep = httpx.post(f"{server.url}/chat/completions", content="[" * 100_000, timeout=30)
    assert deep.status_code == 400
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,\u00e9"}}]
    assert post(server, messages=[{"role": "user", "content": content}]).status_code == 400


def test_an_invalid_body_and_an_unknown_path_get_a_response(server):
    broken = httpx.post(f"{server.url}/chat/completions", content=b"{")
    assert broken.status_code == 400
    assert "not valid JSON" in broken.json()["error"]["message"]
    assert httpx.post(f"{server.url}/completions", json={}).status_code == 404
    assert httpx.get(f"{server.url}/x").json()["error"]["message"] == "nothing at GET /v1/x"
    assert post(server).status_code == 200


def test_concurrent_requests_are_answered_in_batches_each_with_its_own_reply():
    echo = Echo(seconds=0.3)
    with ModelServer(echo) as server, ThreadPoolExecutor(12) as pool:
        asked = [{"messages": [{"role": "user", "content": str(number)}]} for number in range(12)]
        answers = list(pool.map(lambda body: post(server, **body).json(), asked))
    said = [one["choices"][0]["message"]["content"] for one in answers]
    assert said == [str(number) for number in range(12)]
    assert len(echo.batches) < 12
    assert sum(len(conversations) for conversations, _ in echo.batches) == 12


def test_different_samplings_do_not_share_a_batch():
    echo = Echo(seconds=0.05)
    with ModelServer(echo) as server, ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda t: post(server, temperature=t), [0.0, 0.5] * 3))
    assert {sampling.temperature for _, sampling in echo.batches} == {0.0, 0.5}
    assert sum(len(conversations) for conversations, _ in echo.batches) == 6


def test_several_choices_have_different_seeds(server, echo):
    found = post(server, n=3, seed=5).json()
    assert [one["index"] for one in found["choices"]] == [0, 1, 2]
    assert [one.seed for one in echo.batches[0][0]] == [5, 6, 7]


def test_requests_without_a_seed_draw_anew(echo):
    with ModelServer(echo) as server:
        for _ in range(2):
            post(server)
        seeds = [one.seed for batch, _ in echo.batches for one in batch]
    assert len(set(seeds)) == 2
    with ModelServer(echo) as again:
        post(again)
    assert echo.batches[-1][0][0].seed == seeds[0]  # a server's draws repeat


def test_too_many_requests_are_rejected_and_our_client_retries():
    echo = Echo(seconds=0.5)
    with ModelServer(echo, batcher=Batcher(echo, batch_size=1, most_waiting=1)) as server:
        first = threading.Thread(target=post, args=(server,))
        first.start()
        while not echo.batches:
            time.sleep(0.01)
        refused = post(server)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert refused.json()["error"]["type"] == "rate_limit_error"
        waits = []

        def wait(seconds):
            waits.append(seconds)
            first.join()

        policy = OpenAIPolicy("echo", base_url=server.url, sleep=wait)
        asked = Conversation([Message("user", ("again",))], seed=0)
        assert policy.reply([asked], sampling=GREEDY)[0].text == "again"
        assert waits == [1.0]


def test_an_unavailable_or_failing_model_is_an_error_and_the_server_continues(server, echo):
    echo.is_away = True
    answer = post(server)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["error"]["type"] == "server_error"
    echo.is_away = False
    assert post(server).status_code == 200


def test_a_server_slower_than_the_clients_time_out_is_an_infrastructure_failure():
    echo = Echo(seconds=0.5)
    with ModelServer(echo) as server:
        policy = OpenAIPolicy(
            "echo", base_url=server.url, endpoint=Endpoint(timeout_seconds=0.1, max_retries=0)
        )
        asked = Conversation([Message("user", ("q",))], seed=0)
        with pytest.raises(PolicyUnavailableError, match=r"no answer within 0\.1 s"):
            policy.reply([asked], sampling=GREEDY)


def test_a_key_is_required_if_one_is_set(echo):
    with ModelServer(echo, api_key="secret") as server:
        refused = post(server)
        assert (refused.status_code, refused.json()["error"]["type"]) == (
            401,
            "authentication_error",
        )
        assert "secret" not in refused.text
        policy = OpenAIPolicy("echo", base_url=server.url, api_key="secret")
        asked = Conversation([Message("user", ("q",))], seed=0)
        assert policy.reply([asked], sampling=GREEDY)[0].text == "q"


def test_openais_own_client_works(server):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=server.url, api_key="none") as client:
        found = client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "hi"}]
        )
        assert found.choices[0].message.content == "hi"
        assert [one.id for one in client.models.list()] == ["echo"]
        with pytest.raises(openai.NotFoundError, match="not served"):
            client.chat.completions.create(model="x", messages=[{"role": "user", "content": "hi"}])


def test_the_nano_model_scores_over_http_like_in_process():
    policy = load_policy("nano", device="cpu")
    suite = NanoSuite("test")
    tasks = [suite[index] for index in (3, 4, 5, 10, 11)]
    with open_sandbox("local") as sandbox, ModelServer(policy) as server:
        settings = {"sandbox": sandbox, "sampling": GREEDY, "evidence": False, "seed": 1}
        near = rollout(policy, tasks, **settings)
        far = rollout(load_policy("nano", base_url=server.url), tasks, **settings)
        asked = {"role": "user", "content": "How many red discs are there?"}
        found = post(server, messages=[asked], temperature=0, logprobs=True, max_tokens=5).json()
    assert [[turn.text for turn in one.turns] for one in far] == [
        [turn.text for turn in one.turns] for one in near
    ]
    assert [one.accuracy for one in far] == [one.accuracy for one in near]
    tokens = found["choices"][0]["logprobs"]["content"]
    assert found["usage"]["completion_tokens"] == len(tokens) == 5
    assert found["choices"][0]["finish_reason"] == "length"
    assert all(one["logprob"] <= 0.0 for one in tokens)
    assert "".join(one["token"] for one in tokens) == found["choices"][0]["message"]["content"]
    assert found["usage"]["prompt_tokens"] > 0


def test_sampled_replies_over_http_equal_those_in_process():
    policy = load_policy("nano", device="cpu")
    tasks = [NanoSuite("test")[index] for index in (3, 10)]
    sampling = Sampling(temperature=1.5, max_new_tokens=40)
    with open_sandbox("local") as sandbox, ModelServer(policy) as server:
        settings = {"sandbox": sandbox, "sampling": sampling, "evidence": False, "samples": 2}
        near = rollout(policy, tasks, **settings)
        served = load_policy("openai:nano", endpoint=Endpoint(base_url=server.url))
        far = rollout(served, tasks, **settings)
    assert [[turn.text for turn in one.turns] for one in far] == [
        [turn.text for turn in one.turns] for one in near
    ]
    assert served.usage.output_tokens == sum(sum(one.tokens.mask) for one in near)


def test_the_next_turn_continues_from_the_sampled_ids():
    records = TokenRecords(most=2)
    asked = Conversation([Message("user", ("q",))], seed=1)
    asked.tokens = Tokens((7, 8), (0.0, -1.0), (-1, 0), 0)
    records.keep([(asked, Reply("r"))])
    said = [*asked.messages, Message("assistant", ("r",)), Message("user", ("more",))]
    other, again, third = (Conversation(list(said), seed=seed) for seed in (2, 1, 1))
    records.find([other, again, third, Conversation([Message("user", ("q",))], seed=1)])
    assert other.tokens is None  # it has another seed
    assert again.tokens is asked.tokens
    assert third.tokens is None  # each record is continued once
    records.keep([(asked, Reply("r"))], is_seeded=False)
    unseeded = Conversation(list(said), seed=9)
    records.find([unseeded], is_seeded=False)
    assert unseeded.tokens is asked.tokens  # its next turn has another seed
