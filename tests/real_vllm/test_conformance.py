"""The conformance checks on a real vLLM: over exact ids, and by its OpenAI-compatible interface."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from codedance.pipelines.config.server_settings import RolloutSettings
from codedance.pipelines.serving.engine.policy import weights_folder
from codedance.pipelines.serving.engine.server import Engine as Server
from codedance.policies.inference.endpoint import Endpoint
from codedance.policies.inference.openai_client import OpenAIPolicy
from codedance.policies.inference.vllm.control import EngineControl
from codedance.policies.inference.vllm.policy import VllmPolicy
from codedance.policies.interface import Sampling
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.model_folder import load_token_model, save_token_model
from conformance import checks
from conformance.checks import Engine

pytestmark = pytest.mark.vllm
NAMES = ("vllm", "openai, with notes")


@pytest.fixture(scope="module")
def engines(engine: Server) -> Iterator[dict[str, Engine]]:
    model = load_token_model(NANO_FOLDER, device="cpu")
    with torch.no_grad():
        model.model.lm_head.weight.mul_(0.4)  # less sure of its next token: 51 % for the likeliest
    (served,) = httpx.get(f"{engine.url}/v1/models").json()["data"]
    endpoint = Endpoint(base_url=f"{engine.url}/v1", notes=str(NANO_FOLDER))
    policy = OpenAIPolicy(served["id"], endpoint=endpoint)
    with weights_folder(RolloutSettings()) as folder:
        save_token_model(model, folder / "unsure")
        EngineControl(engine.url).load_weights(folder / "unsure", "unsure")
        yield {
            "vllm": Engine(VllmPolicy.of_folder(NANO_FOLDER, [engine.url]), model),
            "openai, with notes": Engine(policy, model),
        }
        EngineControl(engine.url).load_weights(Path(NANO_FOLDER), "default")
    policy.close()


@pytest.fixture(params=NAMES)
def tested(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    return engines[request.param]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.0])
def test_temperature(tested: Engine, temperature: float) -> None:
    checks.temperature_is_that_of_the_softmax(tested, temperature)


def test_temperature_zero(tested: Engine) -> None:
    checks.temperature_zero_takes_the_most_likely(tested)


def test_top_k(tested: Engine) -> None:
    checks.top_k_leaves_the_most_likely(tested)


def test_top_p(tested: Engine) -> None:
    checks.top_p_leaves_the_smallest_set_that_reaches_it(tested)


def test_stop(tested: Engine) -> None:
    checks.a_stop_text_ends_the_reply_and_stays_in_it(tested)


def test_limits(tested: Engine) -> None:
    checks.a_reply_has_its_limit(tested)
    checks.an_episode_has_its_limit(tested)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [0, 3])
def test_scores(engines: dict[str, Engine], temperature: float, top_k: int) -> None:
    sampling = Sampling(temperature, top_k=top_k if temperature else 0, max_new_tokens=12)
    checks.scores_are_those_of_the_sampled_distribution(engines["vllm"], sampling)
