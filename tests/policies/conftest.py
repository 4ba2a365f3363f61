"""Fixtures of this room: one tiny model folder per session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.models.token_model import TokenModel
from codedance.sandbox import open_sandbox
from codedance.sandbox.types import Sandbox

from .tiny import build_tiny

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_model(tiny_folder: Path) -> TokenModel:
    """Loaded again for each test, since some change the weights."""
    return load_token_model(tiny_folder, device="cpu")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with open_sandbox("local") as opened:
        yield opened
