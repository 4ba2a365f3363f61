"""Fixtures of the tests of the paper's experiment."""

from __future__ import annotations

import pytest

from experiments.paper.protocol import load_protocol

from .tiny_claims import TINY_CLAIMS


@pytest.fixture
def tiny_protocol(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(TINY_CLAIMS)
    return load_protocol(path)
