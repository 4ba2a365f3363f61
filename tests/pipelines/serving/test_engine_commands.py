"""Commands and stages whose replies come from vLLM servers, against a fake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from codedance.envs import load_suite
from codedance.pipelines.cli.options import with_engine
from codedance.pipelines.config.flows_file import load_preset
from codedance.pipelines.config.presets import read_overrides, with_overrides
from codedance.pipelines.config.registry import BUILT_IN
from codedance.pipelines.config.server_settings import RolloutSettings
from codedance.pipelines.config.yaml_file import SettingsError
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.runs.stage_parameters import sections_read, stage_parameters
from codedance.pipelines.stages.evaluate import MODES
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.models.model_folder import load_token_model
from policies.inference.vllm.fake_vllm import FakeVllm
from typer import BadParameter

NOWHERE = "http://127.0.0.1:9"
ON_VLLM = RolloutSettings(engine="vllm")


@pytest.fixture
def nano():
    """A server with the weights of the shipped model."""
    with FakeVllm(load_token_model(NANO_FOLDER, device="cpu")) as server:
        yield server


def episodes_of(home, run):
    """Return the stored trajectories of a run."""
    with open_session(home, track=False) as session:
        numbers = [one.id for one in session.store.episodes(run)]
        return list(session.store.trajectories(numbers))


@pytest.mark.slow
def test_an_evaluation_is_generated_by_the_servers_of_flows_yaml(codedance, home, tiny, nano):
    text = Path("flows.yaml").read_text()
    Path("flows.yaml").write_text(f"{text}    rollout: {{engine: vllm, urls: ['{nano.url}/v1']}}\n")
    words = ("evaluate", "--policy", "nano", "--preset", "smoke", "--limit", "2")
    code, out, error = codedance(*words)
    assert code == 0, error
    assert f"vLLM: {nano.url} and our own model agree" in error
    assert re.search(r"nano: \d+ requests, .* tokens read \(\d+% cached\)", error)
    run = out.rpartition("stored as ")[2].strip()
    found = episodes_of(home, run)
    assert len(found) == 2 * len(MODES)
    for one in found:
        assert one.policy_id == "nano@vllm"
        assert one.tokens is not None
        assert {span.version for span in one.tokens.weight_versions} == {"default"}
    turns = sum(len(one.turns) for one in found)
    assert len(nano.bodies) >= turns > 0

    asked = len(nano.bodies)
    nano.kill()  # another engine is no reason to do it again
    for again in (("--engine", "own"), ("--engine-url", NOWHERE), ()):
        code, out, error = codedance(*words, *again)
        assert (code, out.rpartition("stored as ")[2].strip()) == (0, run), error
    assert len(nano.bodies) == asked


def test_an_evaluation_whose_server_is_gone_fails_with_its_address(codedance, home, tiny):
    words = ("--policy", "nano", "--preset", "smoke", "--limit", "2", "--engine-url", NOWHERE)
    code, _, error = codedance("evaluate", *words)
    assert code == 3
    assert NOWHERE in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_curation_asks_the_server_for_the_weak_policy(codedance, home, tiny, nano):
    chosen = ("curate.weak=nano", "curate.candidates=4", "curate.known=1")
    words = [word for one in chosen for word in ("--set", one)]
    code, _, error = codedance(
        "curate", "--preset", "smoke", *words, "--engine-url", nano.url, "--no-prefect"
    )
    assert code == 0, error
    with open_session(home, track=False) as session:
        (run,) = session.store.lineage.find(stage="curate")
        weak = [one.id for one in session.store.episodes(run.id, "weak")]
        strong = [one.id for one in session.store.episodes(run.id, "strong")]
        assert {one.policy_id for one in session.store.trajectories(weak)} == {"nano@vllm"}
        assert {one.policy_id for one in session.store.trajectories(strong)} == {"teacher"}


def test_a_question_is_answered_as_by_our_own_engine(codedance, home, tmp_path, nano):
    task = load_suite("nano", split="test")[0]
    task.images[0].save(tmp_path / "photo.png")
    words = ("ask", str(tmp_path / "photo.png"), task.question, "--json")
    _, own, _ = codedance(*words)
    assert nano.bodies == []
    code, served, error = codedance(*words, "--engine", "vllm", "--engine-url", nano.url)
    assert code == 0, error
    assert nano.bodies
    found, expected = json.loads(served), json.loads(own)
    assert expected["answer"] is not None
    for name in ("answer", "ending", "turns"):
        assert found[name] == expected[name]


def test_an_engine_for_what_is_no_model_is_refused(codedance, home, tmp_path):
    task = load_suite("nano", split="test")[0]
    task.images[0].save(tmp_path / "photo.png")
    for words in (("ask", str(tmp_path / "photo.png"), task.question), ("evaluate",)):
        code, _, error = codedance(*words, "--policy", "oracle", "--engine-url", NOWHERE)
        assert code == 2
        assert "oracle is none" in " ".join(error.split())


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((None, None, None), None),
        ((["grpo.steps=3"], None, None), {"grpo.steps": 3}),
        ((None, "own", None), {"rollout.engine": "own"}),
        ((None, None, ["http://a:1"]), {"rollout.engine": "vllm", "rollout.urls": ["http://a:1"]}),
        (
            (["suite=nano"], "vllm", ["http://a:1", "http://[::1]:2"]),
            {
                "suite": "nano",
                "rollout.engine": "vllm",
                "rollout.urls": ["http://a:1", "http://[::1]:2"],
            },
        ),
    ],
)
def test_options_of_the_engine_are_values_of_the_preset(given, found):
    settings = with_engine(*given)
    assert (settings and read_overrides(settings)) == found


def test_an_address_beside_another_engine_is_refused():
    with pytest.raises(BadParameter, match="a server of vllm, but --engine is own"):
        with_engine(None, "own", ["http://a:1"])


def test_the_engine_decides_no_result():
    preset = load_preset("smoke")
    chosen = {"rollout.engine": "vllm", "rollout.urls": [NOWHERE], "rollout.handshake": False}
    served = with_overrides(preset, chosen)
    assert served.rollout != preset.rollout
    for stage in BUILT_IN:
        parameters = stage_parameters(stage, served)
        assert parameters == stage_parameters(stage, preset)
        assert "rollout" not in parameters


@pytest.mark.parametrize("stage", BUILT_IN)
def test_stages_that_roll_out_read_the_engine(stage):
    is_read = "rollout" in sections_read(stage, load_preset("smoke"))
    assert is_read is (stage != "sft")


def test_the_cold_start_refuses_an_engine(codedance, home, tiny):
    code, _, error = codedance("sft", "--engine", "vllm")
    assert (code, "--engine" in error) == (2, True)
    code, _, error = codedance("sft", "--preset", "smoke", "--set", "rollout.engine=vllm")
    assert code == 2
    assert "--set rollout.engine: sft does not read rollout" in error


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "http://", "http://a:0", "a b"])
def test_an_invalid_address_is_refused_with_the_path_of_its_key(tiny, url):
    preset = load_preset("smoke")
    with pytest.raises(SettingsError, match=r"--set rollout\.urls: .*is not a server address"):
        with_overrides(preset, {"rollout.urls": [url]})
    text = Path("flows.yaml").read_text()
    Path("flows.yaml").write_text(f"{text}    rollout: {{urls: ['{url}']}}\n")
    with pytest.raises(SettingsError) as raised:
        load_preset("smoke")
    line = len(text.splitlines()) + 1
    assert f"flows.yaml:{line}: presets.smoke.rollout.urls" in str(raised.value)
    assert "is not a server address" in str(raised.value)


def test_a_training_that_shares_its_gpu_is_asked_for_by_one_option():
    assert with_engine(["a=1"], None, None, colocated=True) == [
        "a=1",
        "rollout.engine=vllm",
        "rollout.colocated=true",
    ]
    found = with_overrides(
        load_preset("smoke"), read_overrides(with_engine(None, "vllm", [NOWHERE], colocated=True))
    )
    assert found.rollout.colocated
    with pytest.raises(BadParameter, match="for a server of vllm, but --engine is own"):
        with_engine(None, "own", None, colocated=True)


@pytest.mark.parametrize(
    ("command", "takes"), [("run", 1), ("grpo", 1), ("curate", 0), ("sft", 0), ("evaluate", 0)]
)
def test_only_commands_that_train_on_replies_share_a_gpu(codedance, command, takes):
    code, out, _ = codedance(command, "--help")
    assert code == 0
    assert out.count("--colocated") == takes
