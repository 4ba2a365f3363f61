"""Streamed replies and stop texts of the model server, with OpenAI's own client."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest
from codedance.envs.types import Message
from codedance.pipelines.serving.batcher import Batcher, Job
from codedance.pipelines.serving.model_server import ModelServer
from codedance.policies import load_policy
from codedance.policies.interface import Conversation, PolicyUnavailableError, Reply, Sampling

from .streamed_policy import ENDLESS, Typist

openai = pytest.importorskip("openai")

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def typist():
    return Typist()


@pytest.fixture
def server(typist):
    with ModelServer(typist) as opened:
        yield opened


@pytest.fixture
def client(server):
    with client_of(server) as opened:
        yield opened


def client_of(server):
    return openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=60)


def create(client, question="hello", **options):
    messages = question if isinstance(question, list) else [{"role": "user", "content": question}]
    options = {"model": client.models.list().data[0].id, "messages": messages} | options
    return client.chat.completions.create(**options)


def read(chunks, choice=0):
    """Return text, reason and logprobs of one choice."""
    own = [one for chunk in chunks for one in chunk.choices if one.index == choice]
    assert own[0].delta.role == "assistant"
    assert [one.finish_reason for one in own[:-1]] == [None] * (len(own) - 1)
    text = "".join(one.delta.content or "" for one in own)
    tokens = [token for one in own if one.logprobs for token in one.logprobs.content]
    return text, own[-1].finish_reason, tokens


def test_chunks_and_events_have_openais_format(server):
    body = {"model": "typist", "messages": HELLO, "stream": True}
    body["stream_options"] = {"include_usage": True}
    answer = httpx.post(f"{server.url}/chat/completions", json=body, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last = answer.text.removesuffix("\n\n").split("\n\n")
    assert last == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "he"},
        {"content": "ll"},
        {"content": "o"},
        {},
    ]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 5
    assert chunks[-1]["choices"] == []
    usage = {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5}
    assert chunks[-1]["usage"] == usage


def test_usage_is_sent_only_on_request(client):
    assert all(chunk.usage is None for chunk in create(client, stream=True))


def test_several_choices_are_interleaved_each_with_its_index(client):
    chunks = list(create(client, n=3, stream=True))
    assert [read(chunks, choice)[:2] for choice in range(3)] == [("hello", "stop")] * 3


@pytest.mark.parametrize("size", [1, 2, 3, 5, 40])
@pytest.mark.parametrize(
    ("stop", "expected", "reason"),
    [
        ("</answer>", "I see.\n\n<answer>5", "stop"),
        (["zebra", "wer>5</"], "I see.\n\n<ans", "stop"),
        (["</answer>", "\n\n", "see"], "I ", "stop"),
        (["5</answer>!?", "<answer>5<"], "I see.\n\n", "stop"),
        (["I"], "", "stop"),
        (["</answer> "], "I see.\n\n<answer>5</answer>!", "stop"),
        ([], "I see.\n\n<answer>5</answer>!", "stop"),
    ],
)
def test_a_reply_ends_before_the_first_stop_text(size, stop, expected, reason):
    question = "I see.\n\n<answer>5</answer>!"
    with ModelServer(Typist(size)) as server, client_of(server) as client:
        whole = create(client, question, stop=stop).choices[0]
        assert (whole.message.content, whole.finish_reason) == (expected, reason)
        text, reason_of_stream, _ = read(list(create(client, question, stop=stop, stream=True)))
        assert (text, reason_of_stream) == (expected, reason)


@pytest.mark.parametrize(
    ("stop", "expected", "named"),
    [
        (["wer>5</", "zebra"], "I see.\n\n<answer>5</", "wer>5</"),
        (["zebra"], "I see.\n\n<answer>5</answer>!", None),
    ],
)
def test_a_stop_text_is_kept_if_the_request_wants_it_and_named(stop, expected, named):
    question = "I see.\n\n<answer>5</answer>!"
    options = {"stop": stop, "extra_body": {"include_stop_str_in_output": True}}
    with ModelServer(Typist(3)) as server, client_of(server) as client:
        whole = create(client, question, **options).choices[0]
        assert (whole.message.content, whole.stop_reason) == (expected, named)
        chunks = list(create(client, question, stream=True, **options))
        assert read(chunks)[:2] == (expected, "stop")
        assert chunks[-1].choices[0].stop_reason == named


def test_a_stop_text_ends_generation(client, typist):
    found = create(client, ENDLESS, stop="a la", max_tokens=10**6)
    assert found.choices[0].message.content == "l"
    assert found.usage.completion_tokens == 2


def test_a_policy_without_tokens_is_streamed_and_stopped_too():
    class Whole:
        id = "whole"

        def reply(self, conversations, *, sampling):
            return [Reply("5 apples, 6 pears", is_cut=True) for _ in conversations]

    with ModelServer(Whole()) as server, client_of(server) as client:
        assert read(list(create(client, stream=True)))[:2] == ("5 apples, 6 pears", "length")
        found = read(list(create(client, stream=True, stop=[" pears", ", "])))
        assert found[:2] == ("5 apples", "stop")
        assert create(client, stop=", ").choices[0].message.content == "5 apples"


def test_a_disconnecting_client_frees_its_slot(typist):
    batcher = Batcher(typist, batch_size=1, most_waiting=2)
    with ModelServer(typist, batcher=batcher) as server, client_of(server) as client:
        for _ in range(3):  # the only slot, each time
            stream = create(client, ENDLESS, stream=True)
            assert [next(stream).choices[0].delta.content for _ in range(3)] == ["", "la ", "la "]
            stream.close()
        assert create(client).choices[0].message.content == "hello"


def test_a_client_that_abandons_a_whole_reply_frees_its_slot(typist):
    batcher = Batcher(typist, batch_size=1)
    with ModelServer(typist, batcher=batcher) as server, client_of(server) as client:
        body = json.dumps({"messages": [{"role": "user", "content": ENDLESS}]}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as gone:
            gone.sendall(head % len(body) + body)
            while not typist.asked:
                threading.Event().wait(0.01)
        assert create(client).choices[0].message.content == "hello"


def test_whole_and_streamed_replies_are_generated_concurrently(client):
    stream = create(client, ENDLESS, stream=True)
    next(stream)
    assert create(client).choices[0].message.content == "hello"  # while the stream continues
    assert read(list(create(client, "other", stream=True)))[:2] == ("other", "stop")
    assert next(stream).choices[0].delta.content == "la "
    stream.close()


def test_other_sampling_parameters_wait_for_earlier_streams(client, typist):
    stream = create(client, ENDLESS, stream=True)
    next(stream)
    answers = queue.Queue()
    other = threading.Thread(target=lambda: answers.put(create(client, temperature=0.0)))
    other.start()
    stream.close()
    other.join()
    assert answers.get().choices[0].message.content == "hello"


def test_a_closing_server_ends_its_streams(typist, monkeypatch):
    monkeypatch.setattr("codedance.pipelines.serving.model_server._CLOSING_SECONDS", 0.1)
    with contextlib.ExitStack() as closing:
        server = closing.enter_context(ModelServer(typist))
        with client_of(server) as client:
            stream = create(client, ENDLESS, stream=True)
            next(stream)
            closing.close()
            with pytest.raises(openai.APIError, match="the server is closing"):
                list(stream)


def test_a_failure_before_the_first_token_has_its_status():
    class Away:
        id = "away"

        def reply(self, conversations, *, sampling):
            raise PolicyUnavailableError("the model is elsewhere")

    with ModelServer(Away()) as server, client_of(server) as client:
        with pytest.raises(openai.InternalServerError, match="elsewhere") as caught:
            create(client, stream=True)
        assert caught.value.status_code == 503


def test_a_failure_within_a_stream_is_an_error_event_and_the_server_continues(client, typist):
    typist.breaks_at = 3
    stream = create(client, stream=True)
    said = []
    with pytest.raises(openai.APIError, match="MemoryError: the accelerator is full"):
        said.extend(chunk.choices[0].delta.content for chunk in stream)
    assert said == ["", "he", "ll"]
    typist.breaks_at = None
    assert create(client).choices[0].message.content == "hello"


def test_input_unreadable_by_the_model_fails_only_its_request(typist):
    typist.may_open.clear()  # so that all of them join at once
    batcher = Batcher(typist)
    parts: dict[str, queue.Queue] = {name: queue.Queue() for name in ("a", "unreadable", "b")}
    for name, own in parts.items():
        asked = Conversation([Message("user", (name,))], seed=0)
        batcher.submit(Job([asked], Sampling(), own.put))
    typist.may_open.set()
    assert parts["a"].get(timeout=60).text == "a"
    assert parts["b"].get(timeout=60).text == "b"
    error = parts["unreadable"].get(timeout=60)
    assert (error.status, str(error)) == (500, "ValueError: the image cannot be read")
    batcher.close()


def test_the_next_turn_continues_from_the_ids_unless_a_stop_text_ended_the_turn(client, typist):
    for stop in ([], ["lo"]):
        said = create(client, stop=stop).choices[0].message.content
        create(client, [*HELLO, {"role": "assistant", "content": said}, *HELLO])
    assert [one.turn for one in typist.asked] == [0, 1, 0, 1]
    assert typist.joined_with == [None, typist.asked[0].tokens, None, None]


def test_finished_conversations_are_dropped_one_by_one(typist):
    batcher = Batcher(typist, batch_size=2)
    with ModelServer(typist, batcher=batcher) as server, client_of(server) as client:
        stream = create(client, ENDLESS, stream=True)  # keeps the batch open
        next(stream)
        for _ in range(5):
            create(client)
        stream.close()
    assert typist.forgotten == typist.asked[1:4]


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_the_nano_model_streams_its_whole_reply(temperature):
    policy = load_policy("nano", device="cpu")
    asked = {"temperature": temperature, "seed": 4, "max_tokens": 40, "logprobs": True}
    with ModelServer(policy) as server, client_of(server) as client:
        question = "How many red discs are there?"
        whole = create(client, question, **asked)
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        *chunks, last = create(client, question, **asked, **usage)
        text, reason, tokens = read(chunks)
        choice = whole.choices[0]
        assert (text, reason) == (choice.message.content, choice.finish_reason)
        assert [one.token for one in tokens] == [one.token for one in choice.logprobs.content]
        assert [one.logprob for one in tokens] == pytest.approx(
            [one.logprob for one in choice.logprobs.content], abs=1e-4
        )
        assert last.usage == whole.usage
        assert len(chunks) > 5
        middle = text[len(text) // 2 :][:7]
        cut = create(client, question, **asked, stop=middle)
        text_of_cut, reason, tokens_of_cut = read(
            list(create(client, question, **asked, stop=[middle, "zebra"], stream=True))
        )
        assert text_of_cut == cut.choices[0].message.content == text[: text.index(middle)]
        assert reason == "stop"
        assert len(tokens_of_cut) == len(cut.choices[0].logprobs.content) < len(tokens)
        assert cut.usage.completion_tokens < whole.usage.completion_tokens


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_address_answers_and_ends_at_a_signal(number):
    command = [sys.executable, "-m", "codedance.pipelines.cli", "serve", "model", "random"]
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        name, _, url = process.stdout.readline().partition(" at ")
        answer = httpx.get(f"{url.strip()}/models", timeout=60).json()
        assert [one["id"] for one in answer["data"]] == [name] == ["random"]
        assert "Ctrl-C" in process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
