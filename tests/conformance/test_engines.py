"""Sampling parameters have one meaning in our own engine, on vLLM, and behind OpenAI's interface.

vLLM is the fake here; `tests/real_vllm/test_conformance.py` runs the same checks on the real one.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch
from codedance.pipelines.serving.model_server import ModelServer
from codedance.policies.inference.endpoint import Endpoint
from codedance.policies.inference.openai_client import OpenAIPolicy
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Sampling
from codedance.policies.models.model_folder import ModelNotes, load_token_model, save_token_model
from codedance.policies.models.token_model import TokenModel
from policies.inference.vllm.fake_vllm import FakeVllm
from policies.inference.vllm.talks import policy_of
from policies.tiny import build_tiny

from . import checks
from .checks import Engine

ENGINES = ("own", "vllm", "openai, with notes", "openai")
WITH_TOKENS = ENGINES[:2]


def unsure(model: TokenModel) -> TokenModel:
    """Make a random model prefer some printable characters to others."""
    printable = model.chat.encode_text("".join(map(chr, range(32, 127))))
    with torch.no_grad():
        weight = model.model.lm_head.weight
        others = torch.ones(len(weight), dtype=torch.bool)
        others[printable] = False
        weight.mul_(4.0)[others] = 0.0
    return model


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    model = unsure(load_token_model(build_tiny(tmp_path_factory.mktemp("tiny")), device="cpu"))
    own = VisionLanguagePolicy(model, policy_id="unsure", notes=ModelNotes(system_prompt=""))
    folder = tmp_path_factory.mktemp("unsure")
    save_token_model(model, folder)
    with ExitStack() as stack:
        fake = stack.enter_context(FakeVllm(model))
        server = stack.enter_context(ModelServer(own))
        plain = Endpoint(base_url=server.url)
        noted = Endpoint(base_url=server.url, notes=str(folder))
        yield {
            "own": Engine(own, model),
            "vllm": Engine(policy_of(fake), model),
            "openai, with notes": Engine(_asking(server, noted, stack), model),
            "openai": Engine(_asking(server, plain, stack), model, counts_prompts=False),
        }


def _asking(server: ModelServer, endpoint: Endpoint, stack: ExitStack) -> OpenAIPolicy:
    policy = OpenAIPolicy(server.name, endpoint=endpoint)
    stack.callback(policy.close)
    return policy


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    return engines[request.param]


@pytest.mark.parametrize(
    "temperature", [0.4, *(pytest.param(other, marks=pytest.mark.slow) for other in (1.0, 2.0))]
)
def test_temperature(engine: Engine, temperature: float) -> None:
    checks.temperature_is_that_of_the_softmax(engine, temperature)


def test_temperature_zero(engine: Engine) -> None:
    checks.temperature_zero_takes_the_most_likely(engine)


@pytest.mark.slow
def test_top_k(engine: Engine) -> None:
    checks.top_k_leaves_the_most_likely(engine)


def test_top_p(engine: Engine) -> None:
    checks.top_p_leaves_the_smallest_set_that_reaches_it(engine)


def test_stop(engine: Engine) -> None:
    checks.a_stop_text_ends_the_reply_and_stays_in_it(engine)


def test_the_limit_of_a_reply(engine: Engine) -> None:
    checks.a_reply_has_its_limit(engine)


def test_the_limit_of_an_episode(engine: Engine) -> None:
    checks.an_episode_has_its_limit(engine)


@pytest.mark.parametrize("name", WITH_TOKENS)
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.5, max_new_tokens=12),
        Sampling(1.0, max_new_tokens=12),
        Sampling(2.0, max_new_tokens=12),
        Sampling(0.7, top_k=3, max_new_tokens=12),
        Sampling(0.0, max_new_tokens=12),
    ],
    ids=["0.5", "1", "2", "0.7, top_k 3", "greedy"],
)
def test_scores(engines: dict[str, Engine], name: str, sampling: Sampling) -> None:
    checks.scores_are_those_of_the_sampled_distribution(engines[name], sampling)


def test_engines_without_tokens_record_none(engines: dict[str, Engine]) -> None:
    assert [engines[name].has_tokens for name in ENGINES] == [True, True, False, False]
