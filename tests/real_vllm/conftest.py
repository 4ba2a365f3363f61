"""One vLLM server for the whole run, in an environment of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from codedance.pipelines.runs.processes import free_port
from codedance.pipelines.serving.engine.command import EngineOptions
from codedance.pipelines.serving.engine.server import Engine, running_engine
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.models.token_model import TokenModel
from codedance.sandbox import open_sandbox
from codedance.sandbox.types import Sandbox


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    log = tmp_path_factory.mktemp("vllm") / "vllm.log"
    options = EngineOptions(port=free_port(), dtype="float32")
    with running_engine(str(NANO_FOLDER), options, log=log, say=print) as running:
        yield running


@pytest.fixture(scope="session")
def nano() -> TokenModel:
    return load_token_model(Path(NANO_FOLDER), device="cpu")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with open_sandbox("local") as opened:
        yield opened
