"""Stop texts: no part of one is sent, for any split of the reply into pieces."""

import random

import pytest
from codedance.envs.types import Message, Tokens
from codedance.pipelines.serving.reply_writer import ReplyWriter, StopFilter
from codedance.policies.interface import Conversation, Piece, Reply


def ended(text, stop):
    """Return the text before the first complete stop text, by trying every end and start."""
    for end in range(len(text) + 1):
        for start in range(end):
            if text[start:end] in stop:
                return text[:start]
    return text


def split(text, draw):
    while text:
        size = draw.randint(1, 4)
        yield text[:size]
        text = text[size:]


def test_any_text_in_any_pieces_ends_before_the_first_stop_text():
    draw = random.Random(0)
    stopped = 0
    for _ in range(3000):
        text = "".join(draw.choices("abc", k=draw.randint(0, 14)))
        stop = [
            "".join(draw.choices("abc", k=draw.randint(1, 4))) for _ in range(draw.randint(0, 4))
        ]
        expected = ended(text, stop)
        found = StopFilter(stop)
        sent = fed = ""
        for piece in split(text, draw):
            sent, fed = sent + found.add(piece), fed + piece
            if found.is_stopped:
                break
            beginnings = {one[:size] for one in stop for size in range(1, len(one))}
            assert not any(fed[at:] in beginnings for at in range(len(sent)))
        sent += "" if found.is_stopped else found.end()
        assert sent == expected
        assert found.is_stopped == (expected != text or text in stop)
        stopped += found.is_stopped
    assert 500 < stopped < 2500


def test_text_that_cannot_be_a_stop_text_is_sent_immediately():
    found = StopFilter(["</answer>", "\n\n"])
    assert [found.add(piece) for piece in ("5 <", "b>", "</ans", "wer", "\n", "x")] == [
        "5 ",
        "<b>",
        "",
        "",
        "</answer",
        "\nx",
    ]
    assert found.end() == ""


def conversation(*scores):
    ids = tuple(range(len(scores)))
    record = Tokens((9, *ids), (0.0, *scores), (-1, *(0 for _ in ids)), 0)
    return Conversation([Message("user", ("?",))], seed=0, tokens=record)


@pytest.mark.parametrize("read", [0, 1, 2, 3])
def test_deltas_join_to_the_reply_and_its_tokens(read):
    one = conversation(-0.1, -0.2, -0.3, -0.4)  # the last is the end of the turn
    writer = ReplyWriter(0, one, ["zz"])
    pieces = [Piece("ab", (0,), (-0.1,)), Piece("z", (1,), (-0.2,)), Piece("c", (2,), (-0.3,))]
    deltas = [found for piece in pieces[:read] if (found := writer.write(piece))]
    deltas.append(writer.finish(Reply("abzc", new_tokens=4)))
    assert "".join(delta.text for delta in deltas) == "abzc"
    tokens = [token for delta in deltas for token in delta.tokens]
    assert tokens == [(0, -0.1), (1, -0.2), (2, -0.3), (3, -0.4)]
    end = deltas[-1].end
    assert (end.finish_reason, end.prompt_tokens, end.new_tokens) == ("stop", 1, 4)


def test_tokens_of_a_stop_text_are_counted_and_not_sent():
    one = conversation(-0.1, -0.2, -0.3)
    writer = ReplyWriter(2, one, ["<end>"])
    first = writer.write(Piece("a<", (0,), (-0.1,)))
    assert (first.text, first.tokens) == ("a", ((0, -0.1),))
    assert writer.write(Piece("en", (1,), (-0.2,))) is None
    assert writer.write(Piece("d>b", (2,), (-0.3,))) is None
    last = writer.finish(Reply("a<end>b", is_cut=True, new_tokens=3))
    assert (last.choice, last.text, last.tokens) == (2, "", ())
    assert (last.end.finish_reason, last.end.new_tokens, last.end.reply) == ("stop", 3, None)


def test_half_a_character_of_a_reply_is_replaced_by_its_escape():
    writer = ReplyWriter(0, Conversation([], seed=0), ["!"])
    last = writer.finish(Reply("red \ud83d!", is_cut=True))
    assert (last.text, last.end.finish_reason) == ("red \\ud83d", "stop")


def test_a_kept_stop_text_ends_the_text_and_is_named():
    found = StopFilter(["</answer>", "zebra"], is_kept=True)
    assert found.add("<answer>5</ans") == "<answer>5"
    assert found.add("wer> more") == "</answer>"
    assert found.found == "</answer>"
    assert found.end() == ""
