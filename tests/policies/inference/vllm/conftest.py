"""Fakes of vLLM over the tiny model."""

from collections.abc import Iterator

import pytest
from codedance.policies.models.token_model import TokenModel

from .fake_vllm import FakeVllm


@pytest.fixture
def fake(tiny_model: TokenModel) -> Iterator[FakeVllm]:
    with FakeVllm(tiny_model) as server:
        yield server


@pytest.fixture
def other(tiny_model: TokenModel) -> Iterator[FakeVllm]:
    """A second server with the same weights."""
    with FakeVllm(tiny_model) as server:
        yield server
