"""Rollouts on vLLM: which policies they serve, the servers' weights, and the commands' options."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from codedance.envs.types import Message
from codedance.pipelines.config.server_settings import RolloutSettings
from codedance.pipelines.runs.context import StageInterrupted
from codedance.pipelines.runs.processes import ServiceError, free_port
from codedance.pipelines.serving.engine import server as engine_server
from codedance.pipelines.serving.engine.command import EngineOptions
from codedance.pipelines.serving.engine.environment import VARIABLE, EngineError
from codedance.pipelines.serving.engine.policy import (
    engine_policy,
    is_served,
    training_engine,
    vllm_settings,
)
from codedance.pipelines.serving.engine.server import Engine, running_engine
from codedance.policies.inference.vllm.handshake import HandshakeError
from codedance.policies.interface import Conversation, Sampling
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.training.grpo.config import GRPOConfig
from policies.inference.vllm.fake_vllm import FakeVllm
from policies.tiny import build_tiny, noise

NOWHERE = "http://127.0.0.1:9"
QWEN = "Qwen/Qwen2.5-VL-3B-Instruct"
TESTS = Path(__file__).parents[2]
ON_VLLM = RolloutSettings(engine="vllm")
FAKE_PROGRAM = """
import sys, threading
sys.path.insert(0, {tests!r})
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.training.grpo.config import GRPOConfig
from policies.inference.vllm.fake_vllm import FakeVllm
value = lambda flag: sys.argv[sys.argv.index(flag) + 1]
server = FakeVllm(load_token_model(value("--model"), device="cpu"))
server.kill()
server.port = int(value("--port"))
server.restart()
print("serving", flush=True)
threading.Event().wait()
"""
"""Serves a fake of vLLM where the real one would be started."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two model folders of the same architecture."""
    root = tmp_path_factory.mktemp("models")
    return [build_tiny(root / f"run-{seed}" / "final", seed=seed) for seed in (0, 1)]


@pytest.fixture
def fake(folders):
    with FakeVllm(load_token_model(folders[0], device="cpu")) as server:
        yield server


@pytest.fixture
def opened(tmp_path):
    """Open a policy; returns the context and what it says."""
    said = []

    def open_one(source, *servers, **settings):
        urls = tuple(one if isinstance(one, str) else one.url for one in servers)
        chosen = RolloutSettings(engine="vllm", urls=urls, **settings)
        return engine_policy(str(source), chosen, log=tmp_path / "vllm.log", say=said.append)

    open_one.said = said
    return open_one


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """Name an interpreter of vLLM's environment that runs another program instead."""

    def name(program):
        (tmp_path / "program.py").write_text(program)
        run = f"exec {shlex.quote(sys.executable)} {shlex.quote(str(tmp_path / 'program.py'))}"
        (tmp_path / "python").write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\n{run} "$@"\n')
        (tmp_path / "python").chmod(0o755)
        monkeypatch.setenv(VARIABLE, str(tmp_path / "python"))

    return name


def versions_of(policy):
    """Let a policy reply; return the versions of the weights that its tokens name."""
    talk = Conversation([Message("user", (noise(0), "How many?"))], seed=0)
    policy.reply([talk], sampling=Sampling(max_new_tokens=3))
    assert talk.tokens is not None
    return {span.version for span in talk.tokens.weight_versions}


@pytest.mark.parametrize(
    ("source", "is_model"),
    [
        ("nano", True),
        ("some/folder", True),
        ("/a/teacher", True),
        ("Qwen/Qwen2.5-VL-7B-Instruct", True),
        ("oracle", False),
        ("random", False),
        ("teacher", False),
        ("thumbnail", False),
        ("openai:x", False),
        ("openai:Qwen/Qwen2.5-VL-7B-Instruct", False),
    ],
)
def test_vllm_serves_models_alone_and_only_where_it_is_chosen(source, is_model):
    assert is_served(source, ON_VLLM) is is_model
    assert not is_served(source, RolloutSettings())
    assert not is_served(source, RolloutSettings(urls=(NOWHERE,)))


def test_a_server_with_the_same_weights_keeps_them(opened, fake, folders):
    with opened(folders[0], fake) as policy:
        assert policy.id == f"{folders[0]}@vllm"
        assert versions_of(policy) == {"default"}
    assert fake.calls == []
    (line,) = opened.said
    assert line.startswith(f"vLLM: {fake.url} and our own model agree (mean difference ")


def test_a_server_with_other_weights_is_given_ours(opened, fake, folders):
    with opened(folders[1], fake) as policy:
        assert versions_of(policy) == {"run-1/final"}
    first, last = opened.said
    assert "the server has other weights" in first
    assert first.endswith(f"; loading the weights of {folders[1]}")
    assert "and our own model agree" in last
    assert [path.partition("?")[0] for path in fake.calls if "pause" in path] == ["/pause"]
    assert fake.calls[-1] == "/resume"
    with opened(folders[1], fake):  # it still has them
        assert len(opened.said) == 3


def test_every_server_gets_the_weights(opened, fake, folders):
    with (
        FakeVllm(load_token_model(folders[1], device="cpu")) as other,
        opened(folders[1], fake, other) as policy,
    ):
        assert {one.engine.version for one in (fake, other)} == {"run-1/final"}
        assert versions_of(policy) == {"run-1/final"}
    assert opened.said[-1].startswith("vLLM: 2 servers and our own model agree")


def test_other_weights_without_control_routes_say_how_to_start_the_server(opened, fake, folders):
    fake.has_control = False
    with (
        pytest.raises(HandshakeError, match=r"differ by .*codedance serve engine") as raised,
        opened(folders[1], fake),
    ):
        pass
    assert fake.url in str(raised.value)


def test_a_server_that_does_not_agree_after_loading_is_refused(opened, fake, folders):
    fake.engine.load = lambda folder: None  # says that it did
    with pytest.raises(HandshakeError, match=str(fake.port)), opened(folders[1], fake):
        pass


def test_without_a_handshake_nothing_is_compared(opened, fake, folders):
    with opened(folders[1], fake, handshake=False):
        assert (fake.bodies, fake.calls, opened.said) == ([], [], [])


def test_a_wider_bound_accepts_other_weights(opened, fake, folders):
    with opened(folders[1], fake, handshake_bound=50.0):
        assert fake.calls == []
    assert len(opened.said) == 1


def test_an_unreachable_server_is_named(opened, folders):
    with pytest.raises(HandshakeError, match=r"127\.0\.0\.1:9"), opened(folders[0], NOWHERE):
        pass


def test_the_key_of_the_environment_goes_to_the_server_alone(opened, fake, folders, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "a-key-of-mine")
    with opened(folders[1], fake) as policy:
        versions_of(policy)
    assert {*fake.keys} == {"Bearer a-key-of-mine"}
    assert "a-key-of-mine" not in " ".join(opened.said)


@pytest.mark.parametrize(
    ("settings", "seeds"),
    [
        ({}, False),
        ({"gpus": (0,)}, True),
        ({"urls": (NOWHERE,)}, True),
        ({"seeds": True}, True),
        ({"urls": (NOWHERE,), "seeds": False}, False),
    ],
)
def test_only_a_server_of_our_own_on_the_cpu_draws_without_seeds(settings, seeds):
    found = vllm_settings(RolloutSettings(max_retries=7, patience_seconds=2.5, **settings))
    assert (found.seeds, found.max_retries, found.patience_seconds) == (seeds, 7, 2.5)


@pytest.mark.slow
def test_without_addresses_a_server_is_started_and_ended(opened, folders, interpreter, tmp_path):
    interpreter(FAKE_PROGRAM.format(tests=str(TESTS)))
    with opened(folders[0]) as policy:
        (url,) = (one.url for one in policy.servers.all)
        assert versions_of(policy) == {"default"}
        assert not policy.settings.seeds
        assert httpx.get(f"{url}/health").is_success
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
    assert "serving" in (tmp_path / "vllm.log").read_text()
    assert opened.said[0] == f"starting vLLM; its log is {tmp_path / 'vllm.log'}"


def test_a_server_that_dies_at_its_start_is_quoted(opened, folders, interpreter):
    interpreter("raise SystemExit('no operator torchvision::nms')")
    with (
        pytest.raises(ServiceError, match=r"(?s)vLLM died .*no operator torchvision::nms"),
        opened(folders[0]),
    ):
        pass


def test_a_stop_request_ends_a_server_that_is_starting(folders, interpreter, tmp_path):
    interpreter(f"""
import os, time
open({str(tmp_path / "made")!r}, "w").write(str(os.getpid()))
os.rename({str(tmp_path / "made")!r}, {str(tmp_path / "pid")!r})
time.sleep(1000)
""")

    def check():
        if (tmp_path / "pid").exists():
            raise StageInterrupted("stopped")

    with (
        pytest.raises(StageInterrupted),
        engine_policy(
            str(folders[0]), ON_VLLM, log=tmp_path / "vllm.log", say=lambda _: None, check=check
        ),
    ):
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_taken_port_is_refused_before_anything_is_started(fake, folders, interpreter, tmp_path):
    interpreter("raise SystemExit(1)")
    options = EngineOptions(port=fake.port)
    with (
        pytest.raises(ServiceError, match=f"port {fake.port} is taken"),
        running_engine(str(folders[0]), options, log=tmp_path / "log", say=lambda _: None),
    ):
        pass
    assert not (tmp_path / "log").exists()


def test_an_ipv6_address_stands_in_brackets(folders, interpreter, tmp_path, monkeypatch):
    interpreter("import time; time.sleep(1000)")
    asked = []
    monkeypatch.setattr(engine_server, "wait_for", lambda address, *_: asked.append(address))
    options = EngineOptions(host="::1", port=free_port())
    with running_engine(
        str(folders[0]), options, log=tmp_path / "log", say=lambda _: None
    ) as engine:
        assert engine.url == f"http://[::1]:{options.port}"
    assert asked == [f"{engine.url}/health"]


@pytest.fixture
def one_gpu(monkeypatch):
    """A machine with one GPU of 24 GB, on which servers are started in name only."""
    started = []

    @contextmanager
    def start(source, options, **_):
        started.append(options)
        yield Engine(NOWHERE, None)

    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("codedance.pipelines.serving.engine.sharing.gpu_memory", lambda _: 24e9)
    monkeypatch.setattr("codedance.pipelines.serving.engine.policy.running_engine", start)
    return started


def beside(tmp_path, source, said, *, config, **settings):
    chosen = RolloutSettings(engine="vllm", **settings)
    return training_engine(
        str(source), chosen, config=config, log=tmp_path / "vllm.log", say=said.append
    )


def test_the_only_gpu_is_shared_where_that_is_asked_for(one_gpu, tmp_path):
    config, said = GRPOConfig(bf16=True, lora_r=16), []
    with beside(tmp_path, QWEN, said, config=config, colocated=True) as served:
        assert served.colocated
    (options,) = one_gpu
    assert (options.gpus, options.colocated, options.dtype) == ((0,), True, "bfloat16")
    assert (options.memory_share, options.lora_rank) == (0.57, 16)
    assert said == ["vLLM gets 57% of the GPU that it shares with the training"]
    with beside(tmp_path, QWEN, said, config=config, colocated=True, memory_share=0.4):
        assert one_gpu[-1].memory_share == 0.4
    with (
        pytest.raises(EngineError, match=r"the only GPU: set rollout\.colocated: true"),
        beside(tmp_path, QWEN, said, config=config),
    ):
        pass


def test_a_gpu_that_is_too_small_is_refused_with_each_part(one_gpu, tmp_path):
    with (
        pytest.raises(EngineError, match=r"24 GB.* keeps 53\.2 GB.*grpo\.lora_r") as raised,
        beside(tmp_path, QWEN, [], config=GRPOConfig(bf16=True), colocated=True),
    ):
        pass
    assert "codedance plan MODEL --gpus 1 --colocated" in str(raised.value)
    with (
        pytest.raises(EngineError, match=r"cannot plan .*rollout\.memory_share"),
        beside(tmp_path, tmp_path, [], config=GRPOConfig(), colocated=True),
    ):
        pass
    assert not one_gpu


def test_a_server_that_a_killed_training_left_asleep_is_woken(opened, fake, folders):
    fake.asleep = ["weights", "kv_cache"]
    with opened(folders[0], fake, colocated=True) as policy:
        assert versions_of(policy) == {"default"}
    assert fake.calls == ["/wake_up"]


@pytest.mark.parametrize(
    "settings", [{"urls": (NOWHERE, "http://127.0.0.1:8")}, {"transfer": "nccl"}]
)
def test_one_gpu_has_one_server_and_no_transfer_between_gpus(settings):
    with pytest.raises(ValueError, match="colocated needs one server"):
        RolloutSettings(engine="vllm", colocated=True, **settings)
