"""A run's configuration is resolved once and recorded; every stage gets the recorded one."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from codedance.pipelines.config.flows_file import load_preset
from codedance.pipelines.config.yaml_file import SettingsError
from codedance.pipelines.runs.overrides import OVERRIDES
from codedance.pipelines.runs.requests import RunRequest, open_pipeline, reopen_pipeline
from codedance.pipelines.runs.runner import StageError, resolved_run
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.stages import curate as curate_module

from ..frames import MOST_FRAMES, Reached, is_ours
from ..tiny_runs import TINY, first_run, with_function


@pytest.fixture
def reached(monkeypatch):
    """Frames of ours above the first stage's function, which only records them."""
    found = []

    def run_curate(_context):
        frames = [frame.function for frame in inspect.stack()[1:] if is_ours(frame.filename)]
        found.extend(reversed(frames))
        raise Reached

    with_function(monkeypatch, curate_module, run_curate)
    return found


@pytest.mark.parametrize("command", ["run", "curate"])
def test_a_command_reaches_a_stage_through_few_frames(codedance, home, tiny, reached, command):
    assert codedance(command, "--preset", "smoke", "--no-prefect")[0] != 0
    assert reached[0] == "main"
    assert len(reached) + 1 <= MOST_FRAMES, reached


def test_an_edit_of_flows_yaml_does_not_change_a_started_run(home, tiny):
    with open_session(home, track=False) as session:
        begun = open_pipeline(session, RunRequest("smoke"))
        Path("flows.yaml").write_text(TINY.replace("steps: 4", "steps: 5"))
        again = reopen_pipeline(session, begun.id)
        assert resolved_run(again).preset.sft.steps == 4
        Path("flows.yaml").write_text("presets: [broken")
        assert resolved_run(reopen_pipeline(session, begun.id)).preset.sft.steps == 4


def test_a_stage_run_cannot_be_reopened_as_a_pipeline_run(finished):
    run = finished.store.lineage.find(stage="sft")[0]
    with pytest.raises(StageError, match="is a run of sft"):
        reopen_pipeline(finished, run.id)


def test_overrides_are_recorded_and_apply_to_later_stages(finished):
    first = first_run(finished)
    changed = open_pipeline(finished, RunRequest(overrides={"grpo.steps": 2}), stage="grpo")
    assert changed.id != first.id
    assert changed.outputs[OVERRIDES] == {"grpo.steps": 2}
    assert resolved_run(changed).preset.grpo.steps == 2
    assert changed.outputs["sft"] == first.outputs["sft"]
    same = open_pipeline(finished, RunRequest(overrides={"grpo.steps": 2}), stage="grpo")
    assert same.id == changed.id
    asked = RunRequest(from_run=changed.id, overrides={"evaluate.limit": 7})
    later = open_pipeline(finished, asked, stage="sft")
    assert later.outputs[OVERRIDES] == {"grpo.steps": 2, "evaluate.limit": 7}
    assert resolved_run(later).preset.grpo.steps == 2


def test_another_preset_drops_the_overrides_of_the_previous_run(finished):
    source = open_pipeline(finished, RunRequest(overrides={"grpo.steps": 2}), stage="grpo")
    plain = open_pipeline(finished, RunRequest("smoke", from_run=source.id), stage="grpo")
    assert resolved_run(plain).preset.grpo == load_preset("smoke").grpo


@pytest.mark.parametrize(
    ("stage", "given", "said"),
    [
        ("sft", {"overrides": {"curate.candidates": 9}}, "takes a finished curate as it is"),
        ("evaluate", {"overrides": {"grpo.steps": 9}}, "takes a finished grpo as it is"),
        ("grpo", {"overrides": {"suite": "nano:bars"}}, "takes the tasks of the curation"),
        (None, {"overrides": {"suite": "nano:bars"}, "suite": "nano"}, "--suite is given too"),
        (
            None,
            {"overrides": {"sandbox.backend": "docker"}, "sandbox": "local"},
            "--sandbox is given too",
        ),
        (None, {"preset": "smoke", "overrides": {"grpo.stpes": 9}}, "did you mean 'steps'"),
    ],
)
def test_an_override_that_would_be_ignored_is_rejected(finished, stage, given, said):
    before = finished.store.lineage.find()
    with pytest.raises(SettingsError, match=said):
        open_pipeline(finished, RunRequest(**given), stage=stage)
    assert finished.store.lineage.find() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "grpo.steps=9"), "reads evaluate, interface"),
        (("--set", "evaluate.limit=9", "--limit", "3"), "--limit is given too"),
        (("--set", "sandbox.backend=docker", "--sandbox", "local"), "--sandbox is given too"),
        (("--set", "evaluate.limt=9"), "did you mean 'limit'"),
    ],
)
def test_an_evaluation_of_one_policy_rejects_settings_that_it_does_not_read(
    codedance, home, words, said
):
    code, out, error = codedance("evaluate", "--policy", "random", *words)
    assert (code, out) == (2, "")
    assert said in error


@pytest.mark.slow
def test_a_set_value_takes_effect_and_is_in_the_store(codedance, home, tiny, way):
    words = ("--preset", "smoke", *way, "--set", "curate.candidates=21")
    assert codedance("curate", *words)[0] == 0
    with open_session(home, track=False) as session:
        (curation,) = session.store.lineage.find(stage="curate")
        (whole,) = session.store.lineage.find(stage="pipeline")
        assert curation.parameters["curate"]["candidates"] == 21
        assert whole.parameters["curate"]["candidates"] == 21
        assert 0 < len(session.store.curation(curation.id)) <= 21
