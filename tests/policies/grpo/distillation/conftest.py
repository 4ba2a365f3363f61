"""Trajectories of the tiny model, and a teacher with other weights behind a fake of vLLM."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from codedance.envs.types import Message
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.models.token_model import PicturedIds, TokenModel
from codedance.policies.training.grpo.distillation.teacher import OwnIds

from ...inference.vllm.fake_vllm import FakeVllm
from ...tiny import build_tiny, noise


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("teacher"), seed=5)


@pytest.fixture
def teacher_model(teacher_folder: Path) -> TokenModel:
    return load_token_model(teacher_folder, device="cpu")


@pytest.fixture
def fake(teacher_model: TokenModel) -> Iterator[FakeVllm]:
    """A server that has the teacher's weights."""
    with FakeVllm(teacher_model) as server:
        yield server


@pytest.fixture
def trajectories(tiny_model: TokenModel) -> list[OwnIds]:
    """Three trajectories of two turns and two images each, of different lengths."""
    found: list[OwnIds] = []
    for seed in range(3):
        messages = [
            Message("user", (noise(seed), "How many?")),
            Message("assistant", ("look" * (seed + 1),)),
            Message("user", ("seen: ", noise(seed + 10, 84, 56))),
            Message("assistant", ("5",)),
        ]
        encoded = tiny_model.chat.encode(messages)
        source = PicturedIds(encoded.ids, list(encoded.images))
        found.append(OwnIds(source, encoded.completion_mask))
    return found
