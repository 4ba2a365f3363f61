"""The episode's token limit behind a server, and parameters that only some servers take."""

import json
from typing import Any

import pytest
from codedance.envs.types import Message
from codedance.policies import rollout
from codedance.policies.inference.openai_server.limits import room_in_context
from codedance.policies.inference.partial_replies import PartialRepliesError
from codedance.policies.interface import Conversation, Reply, Sampling
from codedance.sandbox.types import Sandbox

from ..players import code, task
from .chat_server import Answer, Server, asks, completion, counts, policy_of


def go_on(conversation: Conversation, reply: Reply) -> None:
    """Continue a conversation as a rollout does."""
    conversation.messages += [Message("assistant", (reply.text,)), Message("user", ("more",))]
    conversation.turn += 1


def refused(message: str, **more: str) -> Answer:
    return 400, {}, json.dumps({"error": {"message": message, **more}})


def test_each_request_asks_for_no_more_than_the_episode_has_left(server: Server):
    usage = iter([counts(100, 40), counts(160, 40)])
    server.answer = lambda _: completion("x", usage=next(usage))
    policy, _ = policy_of(server)
    one = asks("q")
    sampling = Sampling(max_new_tokens=150, max_tokens=250)
    for expected in (150, 110):
        (reply,) = policy.reply([one], sampling=sampling)
        assert not reply.is_cut
        assert server.requests[-1][1]["max_tokens"] == expected
        go_on(one, reply)
    assert one.served_tokens == 200


def test_an_episode_with_nothing_left_ends_at_its_limit_without_a_request(server: Server):
    server.answer = lambda _: completion("x", usage=counts(100, 50))
    policy, _ = policy_of(server)
    one = asks("q")
    sampling = Sampling(max_tokens=150)
    (reply,) = policy.reply([one], sampling=sampling)
    assert (reply.text, reply.is_cut) == ("x", False)  # exactly at the limit, but complete
    go_on(one, reply)
    (reply,) = policy.reply([one], sampling=sampling)
    assert (reply.text, reply.is_cut, reply.new_tokens) == ("", True, 0)
    assert len(server.requests) == 1
    assert policy.usage.failures == 0


@pytest.mark.parametrize(
    ("usage", "text", "is_cut"),
    [
        (counts(100, 50), "x", False),
        (counts(100, 51), "x", True),
        (counts(149, 1), "x", False),
        (counts(150, 1), "", True),  # our own engine would not have begun it
    ],
)
def test_a_reply_beyond_the_limit_by_the_servers_count_is_cut(
    server: Server, usage: dict[str, int], text: str, is_cut: bool
):
    server.answer = lambda _: completion("x", usage=usage)
    policy, _ = policy_of(server)
    (reply,) = policy.reply([asks("q")], sampling=Sampling(max_tokens=150))
    assert (reply.text, reply.is_cut) == (text, is_cut)


@pytest.mark.parametrize(
    ("text", "usage", "is_cut"),
    [
        ("x" * 600, counts(100, 20), False),
        ("x" * 600, counts(100, 21), True),
        ("x" * 2_560, counts(100, 20), False),
        ("x" * 2_561, counts(100, 20), True),  # no token has more than 128 characters
        ("x" * 100_000, {}, True),
    ],
)
def test_a_reply_of_a_server_that_ignores_the_limit_is_cut(
    server: Server, text: str, usage: dict[str, int], is_cut: bool
):
    server.answer = lambda _: completion(text, usage=usage)
    policy, _ = policy_of(server)
    (reply,) = policy.reply([asks("q")], sampling=Sampling(max_new_tokens=20, max_tokens=50_000))
    assert reply.is_cut is is_cut
    assert len(reply.text) == min(len(text), 2_560)


def test_tokens_are_estimated_where_a_server_does_not_count(server: Server):
    server.answer = lambda _: completion("x" * 300, usage={})
    policy, _ = policy_of(server)
    one = Conversation([Message("user", ("q" * 600,))], seed=0)  # 200 tokens, and 100 written
    (reply,) = policy.reply([one], sampling=Sampling(max_tokens=320))
    assert not reply.is_cut
    go_on(one, reply)
    (reply,) = policy.reply([one], sampling=Sampling(max_tokens=320))
    assert server.requests[1][1]["max_tokens"] == 18  # 904 characters are 302
    assert reply.is_cut
    assert policy.reply([one], sampling=Sampling(max_tokens=300))[0].text == ""
    assert len(server.requests) == 2


def test_a_rollout_over_its_limit_ends_at_it_and_is_no_infrastructure(
    server: Server, sandbox: Sandbox
):
    usage = iter([counts(100, 40), counts(160, 50)])
    server.answer = lambda _: completion(code("print(1)"), usage=next(usage))
    policy, _ = policy_of(server)
    sampling = Sampling(max_tokens=205)
    (found,) = rollout(policy, [task()], sandbox=sandbox, sampling=sampling, evidence=False)
    assert found.ending == "token_limit"
    assert found.accuracy == 0.0
    assert found.is_valid


CONTEXTS = [
    ("maximum context length is 4096 tokens and your request has 4000 input tokens", 96),
    ("maximum context length is 4096 tokens, however you requested 4196 tokens "
     "(4000 in the messages, 196 in the completion)", 96),
    ("This model's maximum context length is 4096 tokens. However, your messages resulted in "
     "5000 tokens.", 0),
    ("Requested token count exceeds the model's maximum context length of 4096 tokens. You "
     "requested a total of 4200 tokens: 4000 tokens from the input messages and 200 tokens for "
     "the completion", 96),
    ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 0),
    ("You passed 4090 input tokens and requested 100 output tokens. However, the model's context "
     "length is only 4096 tokens", 6),
]  # fmt: skip


@pytest.mark.parametrize(("words", "room"), CONTEXTS)
def test_servers_words_for_a_full_context_are_known(words: str, room: int):
    assert room_in_context(400, words) == room
    assert room_in_context(500, words) is None


def test_a_reply_gets_the_room_that_the_context_leaves(server: Server):
    def answer(body: dict[str, Any]) -> Answer:
        return refused(CONTEXTS[0][0]) if body["max_tokens"] > 96 else completion("x")

    server.answer = answer
    policy, waits = policy_of(server)
    (reply,) = policy.reply([asks("q")], sampling=Sampling())
    assert (reply.text, reply.is_cut) == ("x", False)
    assert [body["max_tokens"] for _, body, _ in server.requests] == [512, 96]
    assert waits == []


@pytest.mark.parametrize(
    "error",
    [
        refused("too long", code="context_length_exceeded"),
        refused("the request exceeds the available context size", type="exceed_context_size_error"),
        refused(CONTEXTS[2][0]),
        refused(CONTEXTS[0][0]),  # the same again, whatever is asked for
    ],
)
def test_a_full_context_ends_an_episode_at_its_token_limit(
    server: Server, sandbox: Sandbox, error: Answer
):
    server.answer = lambda _: error
    policy, _ = policy_of(server)
    (found,) = rollout(policy, [task()], sandbox=sandbox, evidence=False)
    assert found.ending == "token_limit"
    assert len(server.requests) <= 2
    assert policy.usage.failures == 0


def test_another_error_of_a_request_is_infrastructure(server: Server):
    server.answer = lambda _: refused("cannot read image 1")
    policy, _ = policy_of(server)
    with pytest.raises(PartialRepliesError, match="cannot read image 1"):
        policy.reply([asks("q")], sampling=Sampling())


def test_top_k_is_sent_where_it_is_not_0(server: Server):
    policy, _ = policy_of(server)
    policy.reply([asks("q")], sampling=Sampling(top_k=20))
    assert server.requests[0][1]["top_k"] == 20


def test_a_server_that_does_not_take_top_k_is_an_error_of_the_settings(
    server: Server, sandbox: Sandbox
):
    server.answer = lambda _: refused("Unrecognized request argument supplied: top_k")
    policy, _ = policy_of(server)
    with pytest.raises(ValueError, match=r"does not take top_k=20 .*set top_k to 0") as caught:
        rollout(policy, [task()], sandbox=sandbox, sampling=Sampling(top_k=20))
    assert "HTTP 400: Unrecognized" in str(caught.value)
    assert len(server.requests) == 1
