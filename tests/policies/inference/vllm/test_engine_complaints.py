"""What users of other trainers complained about in 2026: none of it can happen here unseen.

Each test names the thread. Stale prefixes and picture features need weights that change.
"""

from pathlib import Path

import pytest
import torch
from codedance.envs.types import Message
from codedance.policies.inference.partial_replies import PartialRepliesError
from codedance.policies.interface import Conversation, Sampling
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.models.token_model import PicturedIds, TokenModel

from ...tiny import noise
from .fake_vllm import FakeVllm
from .talks import TURN, asks, goes_on, policy_of


@pytest.fixture(scope="module")
def nano() -> TokenModel:
    return load_token_model(Path(NANO_FOLDER), device="cpu")


def own_scores(model: TokenModel, talk: Conversation, *pictures: int) -> list[float]:
    """Return the trainer's log-probabilities of sampled tokens; ``pictures`` replaces images."""
    tokens = talk.tokens
    assert tokens is not None
    images = [image for message in talk.messages for image in message.images][: tokens.images]
    if pictures:
        images = [noise(seed, *image.size) for seed, image in zip(pictures, images, strict=True)]
    with torch.inference_mode():
        batch = model.pad([PicturedIds(tokens.ids, images)])
        own = torch.tensor([tokens.mask])
        return model.log_probabilities(batch, own, temperature=1.0).tolist()


def engine_scores(talk: Conversation) -> list[float]:
    tokens = talk.tokens
    assert tokens is not None
    pairs = zip(tokens.log_probabilities, tokens.mask, strict=True)
    return [score for score, own in pairs if own]


def test_ids_of_a_turn_are_a_prefix_of_those_of_the_next() -> None:
    """Slime issue 2388: an earlier reply was tokenised again once pictures came."""
    merged = 0
    nano = load_token_model(Path(NANO_FOLDER), device="cpu")
    with torch.no_grad():
        nano.model.lm_head.weight *= 0.2  # nearly any token, so that they merge in odd ways
    with FakeVllm(nano) as fake:
        policy = policy_of(fake)
        talks = [asks(seed) for seed in range(4)]
        before: list[tuple[int, ...]] = [()] * len(talks)
        for turn in range(3):
            replies = policy.reply(talks, sampling=Sampling(max_new_tokens=30))
            for place, (talk, reply) in enumerate(zip(talks, replies, strict=True)):
                assert talk.tokens is not None
                ids = talk.tokens.ids
                assert ids[: len(before[place])] == before[place]
                own = [i for i, n in zip(ids, talk.tokens.turn_of, strict=True) if n == turn]
                own = [token for token in own if token != nano.chat.end_id]
                merged += nano.chat.encode_text(reply.text) != own
                before[place] = ids
                goes_on(talk, reply.text, noise(50 + turn, 60, 84))
    assert merged >= 6  # most random replies would have other ids if they were encoded again


def test_engine_and_trainer_agree_on_tokens_that_depend_on_the_picture(fake: FakeVllm) -> None:
    """Slime issue 2336: the engine's positions of pictures were wrong."""
    talk = asks(3, size=(84, 56))
    (reply,) = policy_of(fake).reply([talk], sampling=TURN)
    goes_on(talk, reply.text, noise(8, 56, 112))
    policy_of(fake).reply([talk], sampling=TURN)
    engine = engine_scores(talk)
    assert own_scores(fake.model, talk) == pytest.approx(engine, abs=1e-5)
    assert own_scores(fake.model, talk, 70, 71) != pytest.approx(engine, abs=1e-2)


@pytest.mark.parametrize("surplus", [-1, 1])
def test_wrong_number_of_picture_features_is_an_error(tiny_model: TokenModel, surplus: int) -> None:
    """NeMo RL issue 4142: surplus features were cut off with a warning."""
    talk = asks()
    ids = list(tiny_model.chat.open_prompt(talk.messages))
    place = ids.index(tiny_model.chat.image_id)
    ids[place : place + 1] = [tiny_model.chat.image_id] * (1 + surplus)
    images = list(talk.messages[0].images)
    with pytest.raises(ValueError, match="image tokens"):
        tiny_model.pad([PicturedIds(ids, images)])
    with pytest.raises(ValueError, match="image"):
        tiny_model.encoder.collapse(ids, images)
    with pytest.raises(ValueError, match="image"):
        tiny_model.encoder.collapse(tiny_model.chat.open_prompt(talk.messages), images * 2)


def test_pictures_keep_their_size_near_the_length_limit(fake: FakeVllm) -> None:
    """NeMo RL pull request 3940: the engine shrank pictures there, the trainer did not."""
    talk = asks(2, size=(112, 112))
    length = len(fake.model.chat.open_prompt(talk.messages))
    fake.context = fake.engine.context = length + 1
    (reply,) = policy_of(fake).reply([talk], sampling=Sampling(max_tokens=length + 100))
    assert (reply.is_cut, reply.new_tokens) == (True, 1)
    assert talk.tokens is not None
    assert len(talk.tokens.ids) == fake.context
    assert talk.tokens.ids[:length] == tuple(fake.model.chat.open_prompt(talk.messages))
    assert own_scores(fake.model, talk) == pytest.approx(engine_scores(talk), abs=1e-5)


@pytest.mark.parametrize("resizes", [False, True])
def test_an_engine_that_shrinks_a_picture_loses_the_episode(
    nano: TokenModel, resizes: bool
) -> None:
    """The same, with an engine that resizes again what has the model's size: it would be smaller.

    The processor's rule for sizes, applied twice, is not the rule applied once.
    """
    with FakeVllm(nano, resizes=resizes) as fake:
        policy, talk = policy_of(fake), asks(size=(60, 84))
        if not resizes:
            policy.reply([talk], sampling=TURN)
            return
        with pytest.raises(PartialRepliesError, match=r"another prompt: \d+ ids for"):
            policy.reply([talk], sampling=TURN)


def test_ids_in_training_equal_ids_in_inference(nano: TokenModel) -> None:
    """Slime issue 2263: the mask of SFT, built message by message, changed the ids."""
    chat = nano.chat
    talk = asks(1)
    asked = chat.open_prompt(talk.messages)
    ids, own = list(asked), [False] * len(asked)
    for turn, text in enumerate(("<think>a</think>", " 7\n", "<answer>x</answer>")):
        written = [*chat.encode_text(text), chat.end_id]
        goes_on(talk, text, noise(60 + turn, 84, 56))
        asked = chat.after_reply(talk.messages[-1:])
        ids += [*written, *asked]
        own += [True] * len(written) + [False] * len(asked)
    whole = chat.encode(talk.messages)
    opened = len(ids) - len(whole.ids)  # inference opens the next turn, training does not
    assert opened > 0
    assert list(whole.ids) == ids[:-opened]
    assert list(whole.completion_mask) == own[:-opened]


def test_what_a_tool_printed_is_never_a_picture(fake: FakeVllm) -> None:
    """A printed image token would be expanded by the engine."""
    talk = Conversation([Message("user", ("<|image_pad|>" * 3, noise(1), "?"))], seed=0)
    policy_of(fake).reply([talk], sampling=TURN)
    (body,) = fake.bodies
    assert body["token_ids"].count(fake.model.chat.image_id) == 1
