"""What temperature, top-p, top-k, stop texts and limits mean, as checks that every engine passes.

An engine is a policy whose weights are here too. Expected distributions are computed from a plain
forward pass, so that no engine is its own reference.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from codedance.envs.types import Message
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Conversation, Policy, Sampling
from codedance.policies.models.token_model import PicturedIds, TokenModel
from policies.tiny import noise

DRAWS = 100
_DEVIATIONS = 4.0  # of a count; draws are seeded, so a right engine is within or not, always
_GREEDY = Sampling(temperature=0.0, max_new_tokens=24)
_SCORE_BOUND = 1e-4


@dataclass(frozen=True)
class Engine:
    """An engine under test.

    Attributes:
        policy: Policy that asks it.
        model: Its weights.
        counts_prompts: Whether it knows the length of a prompt before it asks.
    """

    policy: Policy
    model: TokenModel
    counts_prompts: bool = True

    @property
    def has_tokens(self) -> bool:
        """Whether ids and their log-probabilities are recorded."""
        talk = asks(0)
        self.policy.reply([talk], sampling=Sampling(max_new_tokens=1))
        return talk.tokens is not None


def asks(seed: int, *, image: bool = False) -> Conversation:
    """Return a conversation that waits for its first reply."""
    picture = (noise(seed, 56, 56),) if image else ()
    return Conversation([Message("user", (*picture, "How many?"))], seed=seed)


def next_token(model: TokenModel, temperature: float = 1.0) -> torch.Tensor:
    """Return the probability of each id to come first, ``(vocabulary,)``, by a forward pass."""
    ids = model.chat.open_prompt(asks(0).messages)
    return (_logits(model, ids, ())[-1] / temperature).softmax(dim=0)


def texts_of(model: TokenModel, ids: Sequence[int]) -> set[str]:
    """Return the texts of single ids; incomplete characters share one."""
    return {model.chat.decode([token]) for token in ids}


def drawn(engine: Engine, sampling: Sampling) -> Counter[str]:
    """Return how often each text was drawn as the first token."""
    talks = [asks(seed) for seed in range(DRAWS)]
    return Counter(one.text for one in engine.policy.reply(talks, sampling=sampling))


def greedy_text(engine: Engine) -> str:
    """Return the most likely reply, by our own engine; it is long enough to be cut."""
    own = VisionLanguagePolicy(engine.model, policy_id="reference")
    (reply,) = own.reply([asks(0)], sampling=_GREEDY)
    assert reply.is_cut
    assert reply.new_tokens == _GREEDY.max_new_tokens
    return reply.text


def temperature_is_that_of_the_softmax(engine: Engine, temperature: float) -> None:
    """Compare counts of draws with softmax(logits / temperature), and not with temperature 1."""
    model = engine.model
    expected, plain = next_token(model, temperature), next_token(model)
    counts = drawn(engine, Sampling(temperature=temperature, max_new_tokens=1))
    ranked = plain.argsort(descending=True).tolist()
    apart = 0.0
    for end in (1, 4, 12):  # the most likely tokens
        among = [token for token in range(len(plain)) if _shows(model, token, ranked[:end])]
        share = float(expected[among].sum())
        spread = math.sqrt(DRAWS * share * (1.0 - share)) + 0.5
        count = sum(counts[text] for text in texts_of(model, ranked[:end]))
        assert abs(count - DRAWS * share) < _DEVIATIONS * spread, f"{count} of {DRAWS}"
        apart = max(apart, abs(share - float(plain[among].sum())) * DRAWS / spread)
    assert temperature == 1.0 or apart > 1.5 * _DEVIATIONS  # a wrong temperature would fail


def temperature_zero_takes_the_most_likely(engine: Engine) -> None:
    """Compare greedy replies, one of them with an image, with those of a plain argmax."""
    own = VisionLanguagePolicy(engine.model, policy_id="reference")
    talks, again = ([asks(0), asks(1, image=True)] for _ in range(2))
    found = engine.policy.reply(talks, sampling=_GREEDY)
    expected = own.reply(again, sampling=_GREEDY)
    assert [one.text for one in found] == [one.text for one in expected]


def top_k_leaves_the_most_likely(engine: Engine) -> None:
    """Draw from two tokens: both come, no other does, in the ratio of their probabilities."""
    plain = next_token(engine.model)
    values, ids = plain.topk(2)
    first, second = (engine.model.chat.decode([token]) for token in ids.tolist())
    counts = drawn(engine, Sampling(top_k=2, max_new_tokens=1))
    assert counts.keys() == {first, second}
    share = float(values[0] / values.sum())
    spread = math.sqrt(DRAWS * share * (1.0 - share))
    assert abs(counts[first] - DRAWS * share) < _DEVIATIONS * spread


def top_p_leaves_the_smallest_set_that_reaches_it(engine: Engine, mass: float = 0.6) -> None:
    """Draw from a nucleus of several tokens: no other comes, and more than the likeliest does."""
    values, ids = next_token(engine.model).sort(descending=True)
    size = int((values.cumsum(dim=0) < mass).sum()) + 1
    assert 1 < size < len(ids) // 2
    counts = drawn(engine, Sampling(top_p=mass, max_new_tokens=1))
    assert counts.keys() <= texts_of(engine.model, ids[:size].tolist())
    assert len(counts) > 1


def a_stop_text_ends_the_reply_and_stays_in_it(engine: Engine) -> None:
    """Stop in the middle of a reply; of five stop texts, the one that is complete first counts."""
    whole = greedy_text(engine)
    begin = next(at for at in range(6, len(whole)) if "\ufffd" not in whole[at : at + 3])
    stop = whole[begin : begin + 3]
    end = whole.index(stop) + len(stop)
    longest = max(map(len, texts_of(engine.model, range(engine.model.vocabulary))))
    absent = tuple(f"never {number}" for number in range(4))
    for stops in ((stop,), (*absent, stop), (stop, stop[:2])):
        until = min(whole.index(one) + len(one) for one in stops if one in whole)
        sampling = Sampling(temperature=0.0, max_new_tokens=24, stop=stops)
        (reply,) = engine.policy.reply([asks(0)], sampling=sampling)
        assert not reply.is_cut, stops
        assert until <= end
        # The rest of the token that completed it may follow, where ids are recorded.
        assert reply.text[:until] == whole[:until], stops
        assert whole.startswith(reply.text)
        assert len(reply.text) < until + longest


def a_reply_has_its_limit(engine: Engine) -> None:
    """Cut a reply at exactly its tokens."""
    whole = greedy_text(engine)
    (reply,) = engine.policy.reply([asks(0)], sampling=Sampling(0.0, max_new_tokens=5))
    assert (reply.is_cut, reply.new_tokens) == (True, 5)
    assert whole.startswith(reply.text.rstrip("\ufffd"))


def an_episode_has_its_limit(engine: Engine) -> None:
    """End an episode at its token limit: cut in a reply, or before it; not as infrastructure."""
    talk = asks(0)
    (reply,) = engine.policy.reply([talk], sampling=Sampling(0.0, max_new_tokens=8))
    talk.messages += [Message("assistant", (reply.text,)), Message("user", ("Go on.",))]
    talk.turn = 1
    least = len(engine.model.chat.open_prompt(talk.messages))
    unlimited = Conversation(list(talk.messages), talk.seed)
    own = VisionLanguagePolicy(engine.model, policy_id="reference")
    (longer,) = own.reply([unlimited], sampling=_GREEDY)
    assert longer.new_tokens >= 4
    sampling = replace(_GREEDY, max_tokens=least + longer.new_tokens // 2)
    (second,) = engine.policy.reply([talk], sampling=sampling)
    assert second.is_cut
    if engine.counts_prompts:
        assert 0 < second.new_tokens <= longer.new_tokens // 2
    (third,) = engine.policy.reply(
        [_after(talk, second.text)], sampling=Sampling(0.0, max_tokens=least)
    )
    assert (third.is_cut, third.text) == (True, "")


def scores_are_those_of_the_sampled_distribution(engine: Engine, sampling: Sampling) -> None:
    """Compare recorded log-probabilities with a plain forward pass, cut as the draws were."""
    talks = [asks(seed, image=seed == 0) for seed in range(3)]
    engine.policy.reply(talks, sampling=sampling)
    for talk in talks:
        tokens = talk.tokens
        assert tokens is not None
        images = [image for message in talk.messages for image in message.images]
        logits = _logits(engine.model, tokens.ids, images) / (sampling.temperature or 1.0)
        if sampling.top_k:
            least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -math.inf)
        expected = logits.log_softmax(dim=-1)[:-1].gather(1, torch.tensor(tokens.ids)[1:, None])
        found = torch.tensor(tokens.log_probabilities)[1:]
        own = torch.tensor(tokens.mask)[1:]
        assert own.any()
        assert (found - expected[:, 0])[own].abs().max() < _SCORE_BOUND


def _logits(model: TokenModel, ids: Sequence[int], images: Sequence[object]) -> torch.Tensor:
    with torch.no_grad():
        hidden = model.hidden(model.pad([PicturedIds(ids, images)]))  # type: ignore[arg-type]
        logits = model.logits(hidden[0]).double()
    logits[:, list(model.encoder.forbidden_ids)] = -math.inf
    return logits


def _shows(model: TokenModel, token: int, others: Sequence[int]) -> bool:
    """Return whether an id has the same text as one of others."""
    return model.chat.decode([token]) in texts_of(model, others)


def _after(talk: Conversation, text: str) -> Conversation:
    talk.messages += [Message("assistant", (text,)), Message("user", ("Go on.",))]
    talk.turn += 1
    return talk
