"""Replies of a real vLLM are recorded exactly: ids, log-probabilities, and what a failure loses."""

import logging
import os
import signal
import threading

import pytest
from codedance.envs import load_suite
from codedance.envs.types import Ending, Message, Tokens
from codedance.pipelines.runs.processes import wait_for
from codedance.pipelines.serving.engine.server import Engine
from codedance.policies import load_policy, rollout
from codedance.policies.inference.vllm.policy import VllmPolicy
from codedance.policies.inference.vllm.settings import VllmSettings
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Conversation, Sampling
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.token_model import TokenModel
from codedance.sandbox.types import Sandbox
from PIL import Image
from policies.tiny import noise

pytestmark = pytest.mark.vllm
_figures = logging.getLogger("figures")
BOUND = 1e-4  # float32 on both sides; 2.2e-5 was measured


def largest_difference(
    model: TokenModel, tokens: Tokens, images: list[Image.Image], temperature: float = 1.0
) -> float:
    """Return the largest difference between the engine's log-probabilities and the trainer's."""
    full = VisionLanguagePolicy(model, policy_id="own").full_logprobs(
        tokens.ids, images[: tokens.images], temperature=temperature
    )
    pairs = zip(full, tokens.log_probabilities, tokens.mask, strict=True)
    return max(abs(now - then) for now, then, own in pairs if own)


def images_in(messages: list[Message]) -> list[Image.Image]:
    return [image for message in messages for image in message.images]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_three_turns_with_images_are_exact(
    engine: Engine, nano: TokenModel, temperature: float
) -> None:
    """Odd sizes, printed control tokens, and replies that would be other ids if encoded again."""
    policy = load_policy("nano", vllm_urls=[engine.url])
    assert isinstance(policy, VllmPolicy)
    sizes = [(224, 224), (60, 84), (500, 90), (33, 47)]
    talks = [
        Conversation([Message("user", (noise(n, *size), "How many?"))], seed=n)
        for n, size in enumerate(sizes)
    ]
    sampling = Sampling(temperature, max_new_tokens=40)
    differences: list[float] = []
    for turn in range(3):
        replies = policy.reply(talks, sampling=sampling)
        for talk, reply in zip(talks, replies, strict=True):
            assert talk.tokens is not None
            assert {span.version for span in talk.tokens.weight_versions} == {"default"}
            images = images_in(talk.messages)
            differences.append(largest_difference(nano, talk.tokens, images, temperature))
            shown = noise(90 + turn, 70 + 50 * turn, 60)
            talk.messages += [
                Message("assistant", (reply.text,)),
                Message("user", ("<|image_pad|> shown: ", shown)),
            ]
            talk.turn += 1
    figures = policy.usage.figures()
    _figures.warning(
        f"largest difference {max(differences):.1e}, cached {figures['cached_share']:.0%}"
    )
    assert max(differences) < BOUND
    assert figures["failures"] == figures["retries"] == 0.0
    assert figures["cached_share"] > 0.2


def test_whole_episodes_are_exact_and_as_good_as_ours(
    engine: Engine, nano: TokenModel, sandbox: Sandbox
) -> None:
    suite = load_suite("nano", split="test")
    tasks = [suite[index] for index in range(60)]
    greedy = Sampling(0.0)
    served = load_policy("nano", vllm_urls=[engine.url])
    theirs = rollout(served, tasks, sandbox=sandbox, sampling=greedy)
    ours = rollout(load_policy("nano"), tasks, sandbox=sandbox, sampling=greedy)
    same = sum(
        a.tokens is not None and b.tokens is not None and a.tokens.ids == b.tokens.ids
        for a, b in zip(theirs, ours, strict=True)
    )
    _figures.warning(
        f"greedy: {same} of {len(tasks)} episodes have the same ids as with our engine"
    )
    assert all(one.is_valid for one in theirs)
    assert same >= 0.95 * len(tasks)
    for one in theirs:
        assert one.tokens is not None
        assert largest_difference(nano, one.tokens, images_in(list(one.conversation()))) < BOUND


def test_stop_text_ends_the_turn_at_the_same_id(engine: Engine, nano: TokenModel) -> None:
    own = VisionLanguagePolicy(nano, policy_id="own")
    suite = load_suite("nano", split="test")
    served = VllmPolicy.of_folder(NANO_FOLDER, [engine.url])
    sampling = Sampling(0.0, stop=("</think>",))

    def talks() -> list[Conversation]:
        tasks = [suite[index] for index in range(8)]
        return [Conversation([Message("user", (*t.images, t.question))], seed=0) for t in tasks]

    mine, theirs = talks(), talks()
    assert own.reply(mine, sampling=sampling) == served.reply(theirs, sampling=sampling)
    for one, other in zip(mine, theirs, strict=True):
        assert one.tokens is not None
        assert other.tokens is not None
        assert one.tokens.ids == other.tokens.ids


def test_killed_server_loses_episodes_to_infrastructure_and_comes_back(
    engine: Engine, sandbox: Sandbox
) -> None:
    suite = load_suite("nano", split="test")
    tasks = [suite[index] for index in range(40)]
    settings = VllmSettings(patience_seconds=1.0, max_retries=1)
    policy = VllmPolicy.of_folder(NANO_FOLDER, [engine.url], settings=settings)
    killed = threading.Event()

    def kill(_: object) -> None:
        if not killed.is_set() and engine.service.process is not None:
            killed.set()
            os.killpg(engine.service.process.pid, signal.SIGKILL)

    found = rollout(policy, tasks, sandbox=sandbox, batch_size=4, on_trajectory=kill)
    lost = [one for one in found if one.ending is Ending.INFRASTRUCTURE]
    _figures.warning(f"{len(lost)} of {len(found)} episodes were lost")
    assert 0 < len(lost) < len(found)
    assert all(one.accuracy is None and not one.is_valid for one in lost)
    engine.service.end()
    engine.service.start()
    wait_for(f"{engine.url}/health", engine.service)
    again = rollout(policy, tasks[:8], sandbox=sandbox, batch_size=4)
    assert all(one.is_valid for one in again)
