"""Replies read during generation: pieces, and an end at any token."""

import pytest
import torch
from codedance.envs.types import Message, Tokens
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Conversation, Piece, Reply, Sampling, TokenStream
from codedance.policies.models.token_model import TokenModel

from ..tiny import noise

SAMPLING = Sampling(max_new_tokens=20)


@pytest.fixture
def policy(tiny_model: TokenModel) -> VisionLanguagePolicy:
    """A model that sometimes ends its turn, and generates incomplete characters."""
    with torch.no_grad():
        tiny_model.model.lm_head.weight[tiny_model.chat.end_id] *= 4.0
    return VisionLanguagePolicy(tiny_model, policy_id="tiny")


def asked(seed: int) -> Conversation:
    return Conversation([Message("user", (noise(seed), "how many? " * (1 + seed)))], seed=seed)


def own(one: Conversation, reply: Reply) -> tuple[int, ...]:
    assert isinstance(one.tokens, Tokens)
    return one.tokens.ids[len(one.tokens.ids) - reply.new_tokens :]


def read_to_the_end(policy, conversations) -> list[tuple[Conversation, Reply, list[Piece]]]:
    pieces: dict[int, list[Piece]] = {id(one): [] for one in conversations}
    done = []
    with policy.stream(sampling=SAMPLING, slots=4) as stream:
        assert isinstance(stream, TokenStream)
        stream.join(conversations)
        while stream.is_busy:
            for one, reply in stream.advance():
                done.append((one, reply, pieces.pop(id(one))))
            for one in conversations:
                if id(one) in pieces and (piece := stream.piece(one)) is not None:
                    pieces[id(one)].append(piece)
    return done


def test_pieces_join_to_the_beginning_of_the_reply(policy):
    for start in range(0, 24, 4):
        done = read_to_the_end(policy, [asked(seed) for seed in range(start, start + 4)])
        assert len(done) == 4
        for one, reply, pieces in done:
            text = "".join(piece.text for piece in pieces)
            ids = sum((piece.ids for piece in pieces), ())
            scores = sum((piece.log_probabilities for piece in pieces), ())
            assert reply.text.startswith(text)
            assert own(one, reply)[: len(ids)] == ids
            assert len(scores) == len(ids)
            assert all(piece.text and not piece.text.endswith("\ufffd") for piece in pieces)


def test_streamed_replies_equal_those_of_a_whole_call(policy):
    whole = [asked(seed) for seed in range(4)]
    replies = policy.reply(whole, sampling=SAMPLING)
    read = {
        one.seed: reply for one, reply, _ in read_to_the_end(policy, [asked(n) for n in range(4)])
    }
    assert [read[one.seed] for one in whole] == replies


@pytest.mark.parametrize("ended", [0, 1, 2])
def test_an_ended_reply_frees_its_slot_and_does_not_change_the_others(policy, ended):
    expected = policy.reply([asked(seed) for seed in range(3)], sampling=SAMPLING)
    conversations = [asked(seed) for seed in range(3)]
    found = {}
    with policy.stream(sampling=SAMPLING, slots=3) as stream:
        stream.join(conversations)
        stream.advance()
        before = stream.free
        gone = conversations[ended]
        reply = stream.end(gone)
        assert stream.free == before + 1
        while stream.is_busy:
            found |= {one.seed: reply for one, reply in stream.advance()}
    assert (reply.new_tokens, reply.is_cut) == (1, False)
    assert expected[ended].text.startswith(reply.text.rstrip("\ufffd"))
    assert found == {n: expected[n] for n in range(3) if n != ended}
    scores = policy.full_logprobs(gone.tokens.ids, gone.messages[0].images)
    assert scores[-1] == pytest.approx(gone.tokens.log_probabilities[-1], abs=1e-4)


def test_all_slots_can_be_emptied_and_filled_again(policy):
    (expected,) = policy.reply([asked(5)], sampling=SAMPLING)
    first, second = asked(0), asked(1)
    with policy.stream(sampling=SAMPLING, slots=2) as stream:
        stream.join([first, second])
        for one in (first, second):
            assert stream.end(one).new_tokens == 0
        assert (stream.free, stream.is_busy, stream.advance()) == (2, False, [])
        again = asked(5)
        stream.join([again])
        replies = []
        while stream.is_busy:
            replies += stream.advance()
    assert replies == [(again, expected)]


def test_a_reply_without_space_ends_like_any_other(policy):
    one = asked(0)
    with policy.stream(sampling=Sampling(max_tokens=1), slots=1) as stream:
        stream.join([one])
        assert stream.piece(one) is None
        assert stream.end(one) == Reply("", new_tokens=0)
        assert not stream.is_busy
