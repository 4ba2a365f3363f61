"""A stop text means the same behind every server: the reply ends with it, as in our own engine."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from codedance.pipelines.serving.model_server import ModelServer
from codedance.policies import load_policy
from codedance.policies.inference.chat_completion import read_completion
from codedance.policies.inference.endpoint import Endpoint
from codedance.policies.inference.openai_server.stop_texts import finish_text
from codedance.policies.interface import Conversation, Sampling

from .chat_server import Answer, Server, asks, completion, policy_of

KEEP = "include_stop_str_in_output"
WRITTEN = "<think>look</think>\n<code>\nprint(1)\n</code>\n<answer>5</answer>"


def stopped(text: str, stop: list[str]) -> tuple[str, str | None]:
    """Return a text up to the stop text that is complete first, and that stop text."""
    found = [(text.find(one) + len(one), one) for one in stop if one in text]
    end, first = min(found, default=(len(text), None))
    return text[:end], first


def openai_like(body: dict[str, Any]) -> Answer:
    """Drop the stop text, name nothing, and refuse fields that are not OpenAI's."""
    if KEEP in body:
        return 400, {}, f'{{"error": {{"message": "Unrecognized request argument: {KEEP}"}}}}'
    text, stop = stopped(WRITTEN, body.get("stop", []))
    return completion(text.removesuffix(stop or ""))


def ignorant(body: dict[str, Any]) -> Answer:
    """Drop the stop text, name nothing, and ignore unknown fields."""
    text, stop = stopped(WRITTEN, body.get("stop", []))
    return completion(text.removesuffix(stop or ""))


def vllm_like(body: dict[str, Any]) -> Answer:
    """Keep the stop text where that is asked for, and name it."""
    text, stop = stopped(WRITTEN, body.get("stop", []))
    kept = text if body.get(KEEP) else text.removesuffix(stop or "")
    return completion(kept, stop_reason=stop)


def sglang_like(body: dict[str, Any]) -> Answer:
    """Drop the stop text, and name it under SGLang's name."""
    text, stop = stopped(WRITTEN, body.get("stop", []))
    return completion(text.removesuffix(stop or ""), matched_stop=stop or 151645)


def deaf(_: dict[str, Any]) -> Answer:
    """Ignore stop texts, and write on to the limit."""
    return completion(WRITTEN + " and so on", "length")


SERVERS = [openai_like, ignorant, vllm_like, sglang_like, deaf]


@pytest.mark.parametrize("answer", SERVERS)
@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (("</code>",), "<think>look</think>\n<code>\nprint(1)\n</code>"),
        (("</answer>", "</code>"), "<think>look</think>\n<code>\nprint(1)\n</code>"),
        (("</answer>",), WRITTEN),
        (("</think>",), "<think>look</think>"),
        (("\n</code>", "</answer>"), "<think>look</think>\n<code>\nprint(1)\n</code>"),
    ],
)
def test_a_reply_ends_with_its_stop_text_behind_every_server(
    server: Server, answer: Callable[[dict[str, Any]], Answer], stop: tuple[str, ...], expected: str
):
    server.answer = answer
    policy, waits = policy_of(server)
    (reply,) = policy.reply([asks("q")], sampling=Sampling(stop=stop))
    assert (reply.text, reply.is_cut) == (expected, False)
    assert server.requests[-1][1]["stop"] == list(stop)
    assert waits == []  # a field that is not taken is left out without a wait


def test_a_field_that_a_server_refuses_is_sent_once_in_the_policys_life(server: Server):
    server.answer = openai_like
    policy, _ = policy_of(server)
    for _ in range(2):
        policy.reply([asks("q")], sampling=Sampling(stop=("</code>",)))
    assert [KEEP in body for _, body, _ in server.requests] == [True, False, False]
    assert policy.usage.failures == policy.usage.retries == 0


def test_nothing_about_stop_texts_is_sent_where_there_are_none(server: Server):
    policy, _ = policy_of(server)
    policy.reply([asks("q")], sampling=Sampling())
    assert not {"stop", "top_k", KEEP} & set(server.requests[0][1])


def test_the_fifth_stop_text_is_found_in_the_reply(server: Server):
    server.answer = ignorant
    policy, _ = policy_of(server)
    stop = ("1)!", "2)!", "3)!", "4)!", "</code>")
    (reply,) = policy.reply([asks("q")], sampling=Sampling(stop=stop))
    assert server.requests[0][1]["stop"] == list(stop[:4])
    assert reply.text == "<think>look</think>\n<code>\nprint(1)\n</code>"


@pytest.mark.parametrize(
    ("choice", "stop", "expected"),
    [
        # Unknown what ended it: the stop text that closes what is open.
        ({}, ("</code>",), "<code>\nprint(1)\n</code>"),
        ({}, ("</answer>", "</code>"), "<code>\nprint(1)\n</code>"),
        ({}, ("</answer>",), "<code>\nprint(1)\n"),
        ({}, ("\n\n",), "<code>\nprint(1)\n"),
        # The server says that no stop text did.
        ({"stop_reason": None}, ("</code>",), "<code>\nprint(1)\n"),
        ({"stop_reason": 7}, ("</code>",), "<code>\nprint(1)\n"),
        ({"matched_stop": 7}, ("</code>",), "<code>\nprint(1)\n"),
        # It names one, or something that is none.
        ({"stop_reason": "\n\n"}, ("</code>", "\n\n"), "<code>\nprint(1)\n\n\n"),
        ({"stop_reason": "end_turn"}, ("</code>",), "<code>\nprint(1)\n</code>"),
    ],
)
def test_what_is_appended_to_a_reply_without_its_stop_text(
    choice: dict[str, object], stop: tuple[str, ...], expected: str
):
    answer = read_completion(json.loads(completion("<code>\nprint(1)\n", **choice)[2]))
    assert finish_text(answer, stop) == (expected, False)


def test_a_reply_that_the_limit_cut_gets_no_stop_text():
    answer = read_completion(json.loads(completion("<code>\nprint(1", "length")[2]))
    assert finish_text(answer, ("</code>",)) == ("<code>\nprint(1", True)


def test_the_innermost_open_tag_is_closed():
    answer = read_completion(json.loads(completion("<think>a <answer>5")[2]))
    stop = ("</answer>", "</think>", "\n</answer>")
    assert finish_text(answer, stop)[0] == "<think>a <answer>5\n</answer>"


def test_half_a_character_in_a_stop_text_can_be_sent(server: Server):
    server.answer = lambda _: completion("a \ud83d b")
    policy, _ = policy_of(server)
    (reply,) = policy.reply([asks("q")], sampling=Sampling(stop=("\ud83d",)))
    assert reply.text == "a \\ud83d"


def test_the_nano_model_stops_over_http_where_it_stops_in_process():
    model = load_policy("nano", device="cpu")
    asked = [asks("How many red discs are there?", seed) for seed in range(3)]
    sampling = Sampling(temperature=0.0, max_new_tokens=200, stop=("</think>", "</answer>"))
    with ModelServer(model) as server:
        served = load_policy("openai:nano", endpoint=Endpoint(base_url=server.url))
        far = served.reply(asked, sampling=sampling)
    near = model.reply([Conversation(one.messages, one.seed) for one in asked], sampling=sampling)
    assert all("</think>" in reply.text for reply in near)
    for one, other in zip(near, far, strict=True):
        assert other.text == one.text[: one.text.index("</think>") + len("</think>")]
        assert not one.is_cut
        assert not other.is_cut
