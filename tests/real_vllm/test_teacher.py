"""A real vLLM scores the tokens of another model as that of its weights in this process does."""

import logging

import pytest
import torch
from codedance.envs import load_suite
from codedance.pipelines.serving.engine.server import Engine
from codedance.policies import rollout
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Sampling
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.model_folder import read_notes
from codedance.policies.models.token_model import PicturedIds, TokenModel
from codedance.policies.training.grpo.distillation.served_teacher import (
    ServedTeacher,
    TeacherServers,
)
from codedance.policies.training.grpo.distillation.teacher import LocalTeacher, OwnIds
from codedance.sandbox.types import Sandbox

pytestmark = pytest.mark.vllm
_figures = logging.getLogger("figures")
BOUND = 1e-4  # float32 on both sides


@pytest.fixture
def played(nano: TokenModel, sandbox: Sandbox) -> list[OwnIds]:
    """Episodes at temperature 1.5, so that there are unlikely tokens among them."""
    policy = VisionLanguagePolicy(nano, policy_id="nano", notes=read_notes(NANO_FOLDER))
    suite = load_suite("nano", split="test")
    tasks = [suite[index] for index in range(12)]
    sampling = Sampling(1.5, max_new_tokens=60)
    found: list[OwnIds] = []
    for one in rollout(policy, tasks, sandbox=sandbox, seed=0, sampling=sampling):
        assert one.tokens is not None
        images = [image for message in one.conversation() for image in message.images]
        source = PicturedIds(one.tokens.ids, images[: one.tokens.images])
        found.append(OwnIds(source, one.tokens.mask))
    return found


def test_given_tokens_are_scored_exactly(
    engine: Engine, nano: TokenModel, played: list[OwnIds]
) -> None:
    served = ServedTeacher(
        nano.encoder, TeacherServers((engine.url,)), name="nano", temperature=1.0
    )
    served.check()
    # A server keeps the probability of ids that are never sampled, as does no temperature at all.
    raw = LocalTeacher(nano, name="nano", temperature=None, max_tokens=4096)
    local = LocalTeacher(nano, name="nano", temperature=1.0, max_tokens=4096)
    differences: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []
    for one, other, sampled in zip(
        served.score(played), raw.score(played), local.score(played), strict=True
    ):
        assert one.values is not None
        assert other.values is not None
        assert sampled.values is not None
        differences.append((one.values - other.values).abs())
        kept.append(sampled.values - other.values)
    largest = float(torch.cat(differences).max())
    _figures.warning(
        f"{len(torch.cat(differences))} tokens: largest difference {largest:.1e}; ids that are "
        f"never sampled lower a score by {float(torch.cat(kept).max()):.1e} at most"
    )
    assert largest < BOUND
