"""Training with a teacher as a stage: settings, early refusals, and what decides the result."""

from __future__ import annotations

from pathlib import Path

import pytest
from codedance.pipelines.config.flows_file import load_preset
from codedance.pipelines.config.presets import with_overrides
from codedance.pipelines.config.server_settings import RolloutSettings
from codedance.pipelines.config.settings import GRPOSettings, Preset
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.runner import StageError, run_stage
from codedance.pipelines.runs.stage_parameters import stage_parameters
from codedance.pipelines.serving.engine.policy import teacher_servers
from codedance.pipelines.stages.training import check_trainings
from codedance.pipelines.tracking.metrics_file import read_metrics
from codedance.policies.models.model_folder import load_token_model
from policies.inference.vllm.fake_vllm import FakeVllm

from ..tiny_runs import first_run

URL = "http://127.0.0.1:9"
PURE = {"grpo.distillation_weight": 1.0, "grpo.reward_weight": 0.0}


def trained(session, overrides):
    """Train after the finished cold start; return the run of the stage and its metrics."""
    request = RunRequest(from_run=first_run(session).id, overrides=overrides)
    run = run_stage(session, "grpo", open_pipeline(session, request, stage="grpo"))
    return run, read_metrics(session.home.stages / run.id)


@pytest.mark.slow
def test_a_teacher_is_named_in_the_settings_and_its_servers_beside_the_engine(finished):
    cold_start = finished.store.lineage.get(first_run(finished).outputs["sft"]).outputs["model"]
    chosen = {"grpo.teacher": cold_start, "grpo.steps": 1, "grpo.max_redraws": 0, **PURE}
    local, metrics = trained(finished, chosen)
    assert metrics["distillation/kl"][0][1] == pytest.approx(0.0, abs=1e-4)
    assert metrics["distillation/lost"] == [(1, 0.0)]
    with FakeVllm(load_token_model(cold_start, device="cpu")) as fake:
        again, _ = trained(finished, {**chosen, "rollout.teacher_urls": [fake.url]})
        assert (again.id, fake.bodies) == (local.id, [])  # the same work, done already
        seconds, served = trained(
            finished, {**chosen, "grpo.steps": 2, "rollout.teacher_urls": [fake.url]}
        )
        assert seconds.id != local.id
        assert len(fake.bodies) == 1 + 2 * 2 * 2  # the check, and each trajectory
    assert served["distillation/lost"] == [(1, 0.0), (2, 0.0)]


def test_the_state_of_a_teacher_decides_the_result_and_its_servers_do_not(tmp_path):
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    settings = GRPOSettings(teacher=str(folder), distillation_weight=1.0)
    first = stage_parameters("grpo", Preset(grpo=settings))
    served = Preset(grpo=settings, rollout=RolloutSettings(teacher_urls=(URL,)))
    assert stage_parameters("grpo", served) == first
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert stage_parameters("grpo", served) != first


def test_a_relative_folder_is_recorded_as_an_absolute_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("big").mkdir()
    preset = with_overrides(load_preset("smoke"), {"grpo.teacher": "big"})
    assert preset.grpo.teacher == str(tmp_path / "big")


@pytest.mark.parametrize(
    ("grpo", "rollout", "words"),
    [
        ({"teacher": "big"}, {}, "would have no effect"),
        ({"distillation_weight": 1.0}, {}, r"needs a grpo\.teacher"),
        ({"reward_weight": 0.0}, {}, "leaves nothing to learn from"),
        ({"teacher": "openai:big", "distillation_weight": 1.0}, {}, "got openai:big"),
        ({}, {"teacher_urls": (URL,)}, r"teacher_urls need a grpo\.teacher"),
        (
            {"teacher": "big", "distillation_weight": 1.0, "temperature": 0.7},
            {"teacher_urls": (URL,)},
            r"need a grpo\.temperature of 1\.0, got 0\.7",
        ),
        (
            {"teacher": "big", "distillation_weight": 1.0},
            {"urls": (URL,), "teacher_urls": ("http://a:1", f"{URL}/v1")},
            "is among rollout.urls and rollout.teacher_urls",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_before_any_work(grpo, rollout, words):
    preset = Preset(grpo=GRPOSettings(**grpo), rollout=RolloutSettings(**rollout))
    with pytest.raises(StageError, match=words):
        check_trainings(preset)


def test_servers_of_a_teacher_are_used_as_those_of_replies():
    assert teacher_servers(RolloutSettings()) is None
    settings = RolloutSettings(teacher_urls=(URL,), timeout_seconds=5.0, max_retries=7)
    servers = teacher_servers(settings)
    assert servers is not None
    assert servers.urls == (URL,)
    assert (servers.settings.timeout_seconds, servers.settings.max_retries) == (5.0, 7)
