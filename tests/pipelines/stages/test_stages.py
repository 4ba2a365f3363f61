"""The whole pipeline, stopped in every stage, ends like an uninterrupted one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from codedance.envs.suites import SuiteError
from codedance.envs.types import Difficulty
from codedance.pipelines.config.code_version import code_version
from codedance.pipelines.config.flows_file import load_preset
from codedance.pipelines.config.registry import BUILT_IN
from codedance.pipelines.data.exporting import read_whole
from codedance.pipelines.runs.context import StageInterrupted, Stop
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.rescoring import PLAYED, rescore_run
from codedance.pipelines.runs.runner import StageError, find_input, run_stage
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.runs.stage_parameters import stage_parameters
from codedance.pipelines.stages.demonstrations import load_demonstrations
from codedance.pipelines.stages.draws import draw_candidates, held_out_tasks
from codedance.pipelines.stages.grpo import load_tasks
from codedance.pipelines.tracking.metrics_file import read_metrics
from codedance.policies.models.model_folder import read_notes

from ..makers import make_picture
from ..tiny_runs import StopAt, first_run, story

MOMENTS = {"curate": 92, "sft": 3, "grpo": 3, "evaluate": 4}
"""Number of checks in each stage before the stop request, in the middle of its work."""


def weights(folder):
    return hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()


def stages_of(session, pipeline):
    return {name: session.store.lineage.get(pipeline.outputs[name]) for name in BUILT_IN}


def test_run_stopped_in_every_stage_ends_like_an_uninterrupted_one(home, tiny, finished_home):
    with open_session(home, track=False) as session:
        pipeline = open_pipeline(session, RunRequest("smoke"))
        for stage in BUILT_IN:
            session.stop = StopAt(MOMENTS[stage])
            with pytest.raises(StageInterrupted):
                run_stage(session, stage, pipeline)
            (row,) = session.store.lineage.find(stage=stage)
            assert row.status == "interrupted"
            session.stop = Stop()
            again = run_stage(session, stage, open_pipeline(session, RunRequest("smoke")))
            assert (again.id, again.status) == (row.id, "finished")
        stopped = stages_of(session, session.store.lineage.get(pipeline.id))
        stories = {name: story(session.store, run.id) for name, run in stopped.items()}
    with open_session(finished_home, track=False) as session:
        (whole,) = session.store.lineage.find(stage="pipeline", key=pipeline.key)
        smooth = stages_of(session, whole)
        assert stories == {name: story(session.store, run.id) for name, run in smooth.items()}
    for name in ("sft", "grpo"):
        assert weights(stopped[name].outputs["model"]) == weights(smooth[name].outputs["model"])


def test_checkpoints_record_the_tool_they_were_trained_with(finished):
    made = stages_of(finished, first_run(finished))
    for stage in ("sft", "grpo"):
        assert read_notes(made[stage].outputs["model"]).interface == "code"


def test_finished_stages_are_not_repeated(finished):
    pipeline = first_run(finished)
    before = stages_of(finished, pipeline)
    for stage in BUILT_IN:
        assert run_stage(finished, stage, pipeline) == before[stage]
    assert open_pipeline(finished, RunRequest("smoke")).id == pipeline.id


def test_other_parameters_are_another_run(finished):
    pipeline = first_run(finished)
    path = Path("flows.yaml")
    text = path.read_text()
    path.write_text(text.replace("grpo: {steps: 3", "grpo: {steps: 2"))
    try:
        changed = open_pipeline(finished, RunRequest(from_run=pipeline.id), stage="grpo")
        seeded = open_pipeline(finished, RunRequest("smoke", seed=1))
    finally:
        path.write_text(text)
    assert len({changed.id, seeded.id, pipeline.id}) == 3
    assert changed.outputs["sft"] == pipeline.outputs["sft"]
    assert "grpo" not in changed.outputs
    assert seeded.outputs == {}


def test_fresh_run_reuses_nothing(finished):
    pipeline = first_run(finished)
    finished.stop.request()
    fresh = open_pipeline(finished, RunRequest("smoke", fresh=True))
    with pytest.raises(StageInterrupted):
        run_stage(finished, "curate", fresh)
    assert fresh.id != pipeline.id
    assert len(finished.store.lineage.find(stage="curate", parent=fresh.id)) == 1


def test_a_standalone_stage_skips_a_run_without_its_inputs(finished):
    done = first_run(finished)
    begun = open_pipeline(finished, RunRequest("smoke", seed=91))
    assert finished.store.lineage.find(stage="pipeline")[0].id == begun.id
    alone = open_pipeline(finished, RunRequest(fresh=True), stage="grpo")
    assert alone.seed != 91
    assert alone.outputs["sft"]
    named = open_pipeline(finished, RunRequest(from_run=done.id), stage="grpo")
    assert named.id == done.id


def test_a_retried_fresh_run_resumes_itself(home, tiny):
    with open_session(home, track=False) as session:
        first, again, other = (
            open_pipeline(session, RunRequest("smoke", fresh=True, token=token))
            for token in ("one", "one", "two")
        )
    assert first.id == again.id != other.id
    assert first.outputs == again.outputs


def test_refreshing_a_standalone_stage_does_not_change_the_others(home, tiny):
    with open_session(home, track=False) as session:
        alone = open_pipeline(session, RunRequest("smoke", fresh=True), stage="curate")
        assert list(alone.outputs) == ["fresh curate"]
        whole = open_pipeline(session, RunRequest("smoke", seed=1, fresh=True))
        assert list(whole.outputs) == [f"fresh {stage}" for stage in BUILT_IN]


def test_the_error_for_a_missing_input_says_what_to_run_first(home, tiny):
    with open_session(home, track=False) as session:
        pipeline = open_pipeline(session, RunRequest("smoke"))
        with pytest.raises(StageError, match="`codedance curate` first"):
            run_stage(session, "sft", pipeline)


def test_a_standalone_stage_without_inputs_starts_no_run(home, tiny):
    with open_session(home, track=False) as session:
        with pytest.raises(StageError, match="sft needs a finished curate"):
            open_pipeline(session, RunRequest("smoke"), stage="sft")
        assert session.store.lineage.find(stage="pipeline") == []


def test_a_deleted_checkpoint_is_made_again(finished):
    pipeline = first_run(finished)
    model = Path(find_input(finished, pipeline, "sft").outputs["model"])
    hidden = model.rename(model.with_name("hidden"))
    finished.stop.request()
    try:
        with pytest.raises(StageInterrupted):
            run_stage(finished, "sft", pipeline)
    finally:
        hidden.rename(model)


def test_every_candidate_has_its_decision_in_the_store(finished):
    curation = finished.store.lineage.find(stage="curate")[-1]
    rows = finished.store.curation(curation.id)
    assert len(rows) == curation.outputs["candidates"]
    assert all(row.reason for row in rows)
    kept = [row for row in rows if row.is_kept]
    assert {row.demonstration for row in kept} == {"direct", "tools"}
    assert {row.demonstration for row in rows if not row.is_kept} <= {None}
    card = Path(curation.outputs["card"]).read_text(encoding="utf-8")
    assert f"{len(rows)} candidates, {len(kept)} kept" in card


def test_every_demonstration_is_a_right_episode_of_the_environment(finished):
    curation = finished.store.lineage.find(stage="curate")[-1]
    shown = load_demonstrations(finished.store, curation)
    kept = {row.task_key: row for row in finished.store.curation(curation.id) if row.is_kept}
    assert len(shown) == len(kept)
    for demonstration in shown:
        texts = [m.text for m in demonstration.messages if m.role == "assistant"]
        assert f"<answer>{demonstration.task.answer}</answer>" in texts[-1]
        has_code = any("<code>" in text for text in texts)
        assert has_code == (demonstration.tags == ("tools",))


def test_training_tasks_have_difficulty_and_pass_rate(finished):
    curation = finished.store.lineage.find(stage="curate")[-1]
    tasks = load_tasks(finished.store, curation)
    assert len({task.difficulty for task in tasks}) > 1
    for task in tasks:
        assert task.split == "train"
        expected = {0.0: Difficulty.HARD, 0.5: Difficulty.MEDIUM, 1.0: Difficulty.EASY}[
            task.pass_rate
        ]
        assert task.difficulty is expected


def test_metrics_of_both_trainings_are_stored_by_step(finished):
    pipeline = first_run(finished)
    sft = read_metrics(finished.home.stages / pipeline.outputs["sft"])
    grpo = read_metrics(finished.home.stages / pipeline.outputs["grpo"])
    assert [step for step, _ in sft["loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in grpo["reward"]] == [1, 2, 3]


def test_report_is_written_with_both_policies(finished):
    pipeline = first_run(finished)
    page = Path(pipeline.outputs["report"]).read_text(encoding="utf-8")
    assert "grpo against sft, greedy, 70 tasks paired" in page
    assert "<polyline" in page
    assert page.count("<article") > 0


def test_rescoring_finds_a_changed_verdict(finished):
    pipeline = first_run(finished)
    wrong = next(
        e for e in finished.store.episodes(pipeline.outputs["curate"], "strong") if e.accuracy
    )
    finished.store.set_accuracy({wrong.id: 0.0})
    changes = {c.stage_run: c.changed for c in rescore_run(finished, pipeline)}
    assert changes == {
        pipeline.outputs["curate"]: 1,
        pipeline.outputs["grpo"]: 0,
        pipeline.outputs["evaluate"]: 0,
    }
    again = finished.store.episodes(pipeline.outputs["curate"], "strong")
    assert next(e.accuracy for e in again if e.id == wrong.id) == 1.0


def test_rescoring_keeps_all_earlier_verdicts(finished):
    pipeline = first_run(finished)
    curation = pipeline.outputs["curate"]
    right = next(e for e in finished.store.episodes(curation, "strong") if e.accuracy)
    finished.store.set_accuracy({right.id: 0.0})
    first = next(iter(rescore_run(finished, pipeline)))
    finished.store.set_accuracy({right.id: 0.5})
    second = next(iter(rescore_run(finished, pipeline)))
    assert (first.example, first.changed, second.changed) == (right.id, 1, 1)
    assert code_version()[:12] in first.scoring
    kept = read_whole(finished.store, right.id)["scores"]
    verdicts = {name: terms["accuracy"] for name, terms in kept.items() if "graded" in name}
    assert verdicts == {PLAYED: 0.0, first.scoring: 1.0, second.scoring: 1.0}
    assert sorted(verdicts)[:2] == [first.scoring, second.scoring]  # in chronological order


def write_tasks(folder, count, **extra):
    make_picture().save(folder / "picture.png")
    rows = [
        {"id": n, "image": "picture.png", "question": f"What is {n}?", "answer": str(n), **extra}
        for n in range(count)
    ]
    path = folder / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def test_own_tasks_without_splits_are_separated(tmp_path):
    path = write_tasks(tmp_path, 20)
    train = {task.id for task in draw_candidates(path, 100, seed=0)}
    test = {task.id for task in held_out_tasks(path, 100)}
    assert (len(train), len(test)) == (16, 4)
    assert not train & test
    assert len(held_out_tasks(path, 100, whole=True)) == 20


def test_all_damaged_images_are_listed_before_anything_is_played(tmp_path):
    path = Path(write_tasks(tmp_path, 10))
    whole = (tmp_path / "picture.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    rows = path.read_text().splitlines()
    for number in (0, 5, 7):
        rows[number] = rows[number].replace("picture.png", "cut.png")
    path.write_text("\n".join(rows))
    with pytest.raises(SuiteError) as raised:
        held_out_tasks(str(path), 100, whole=True)
    assert [line[:9] for line in str(raised.value).splitlines()[1:]] == [
        "  line 1:",
        "  line 6:",
        "  line 8:",
    ]
    with pytest.raises(SuiteError, match="line 8: "):
        draw_candidates(str(path), 100, seed=0)


def test_changed_task_file_is_another_input(tmp_path):
    path = write_tasks(tmp_path, 5)
    preset = load_preset("smoke").model_copy(update={"suite": path})
    before = stage_parameters("curate", preset)
    assert stage_parameters("curate", preset) == before
    write_tasks(tmp_path, 6)
    assert stage_parameters("curate", preset) != before


def test_another_image_under_the_same_name_is_another_input(tmp_path):
    row = {"question": "How many?", "answer": "5", "image": "a.png"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row))
    make_picture(0).save(tmp_path / "a.png")
    preset = load_preset("smoke").model_copy(update={"suite": str(tmp_path / "mine.jsonl")})
    before = [stage_parameters(stage, preset) for stage in BUILT_IN]
    assert [stage_parameters(stage, preset) for stage in BUILT_IN] == before
    make_picture(1).save(tmp_path / "a.png")
    after = [stage_parameters(stage, preset) for stage in BUILT_IN]
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_another_model_under_the_same_name_is_another_input(tmp_path):
    (tmp_path / "base" / "text").mkdir(parents=True)
    weights = tmp_path / "base" / "text" / "model.safetensors"
    weights.write_bytes(b"1234")
    preset = load_preset("smoke")
    curate = preset.curate.model_copy(update={"weak": str(tmp_path / "base")})
    sft = preset.sft.model_copy(update={"base": str(tmp_path / "base")})
    named = preset.model_copy(update={"curate": curate, "sft": sft})
    before = {stage: stage_parameters(stage, named) for stage in ("curate", "sft")}
    weights.write_bytes(b"12345")
    for stage, parameters in before.items():
        assert stage_parameters(stage, named) != parameters
        assert not any("state of" in key for key in stage_parameters(stage, preset))


def test_another_text_of_a_reward_term_in_a_module_is_another_input(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    grpo = load_preset("smoke").grpo
    found = []
    for number in (1, 2):
        name = f"terms_of_mine_{number}"  # a module is imported once per process
        (tmp_path / f"{name}.py").write_text(f"def mine(trajectory):\n    return {number}.0\n")
        changed = grpo.model_copy(update={"reward_terms": {f"{name}:mine": 1.0}})
        preset = load_preset("smoke").model_copy(update={"grpo": changed})
        found.append(stage_parameters("grpo", preset)["own_terms"])
    assert found[0] != found[1]


def test_the_requested_sandbox_is_recorded_with_the_run(home, tiny):
    """Also through Prefect, which reopens the run by its id."""
    with open_session(home, track=False) as session:
        plain = open_pipeline(session, RunRequest("smoke"))
        asked = open_pipeline(session, RunRequest("smoke", sandbox="docker"))
        again = open_pipeline(session, RunRequest("smoke", from_run=asked.id))
    assert plain.parameters["sandbox"]["backend"] == "local"
    assert asked.parameters["sandbox"]["backend"] == "docker"
    assert again.id == asked.id != plain.id


@pytest.mark.slow
def test_a_stopped_refresh_resumes_itself_until_it_is_finished(home, tiny):
    with open_session(home, track=False) as session:
        first = open_pipeline(session, RunRequest("smoke", fresh=True))
        session.stop = StopAt(1)
        with pytest.raises(StageInterrupted):
            run_stage(session, "curate", first)
        session.stop = Stop()
        again = open_pipeline(session, RunRequest("smoke", fresh=True))
        assert again.id == first.id
        done = run_stage(session, "curate", again)
        assert len(session.store.lineage.find(stage="curate")) == 1
        alone = open_pipeline(session, RunRequest("smoke", fresh=True), stage="curate")
        assert run_stage(session, "curate", alone).id != done.id  # that one is finished


@pytest.mark.slow
def test_a_standalone_stage_is_refreshed_from_the_newest_run_with_the_same_settings(home, tiny):
    with open_session(home, track=False) as session:
        whole = open_pipeline(session, RunRequest("smoke"))
        done = run_stage(session, "curate", whole)
        for run_request in (RunRequest("smoke"), RunRequest("smoke", fresh=True)):
            assert open_pipeline(session, run_request, stage="sft").id == whole.id
        again = open_pipeline(session, RunRequest("smoke", fresh=True), stage="curate")
        assert run_stage(session, "curate", again).id != done.id


def test_a_named_run_determines_the_whole_sandbox(home, tiny):
    """Its limits and its minimum level, not only the backend, regardless of flows.yaml."""
    flows = Path("flows.yaml")
    before = flows.read_text()
    strict = "sandbox: {floor: full, limits: {wall_seconds: 3, memory_mb: 300}, libraries: [numpy]}"
    flows.write_text(before.replace("suite: nano", f"suite: nano\n    {strict}"))
    with open_session(home, track=False) as session:
        asked = open_pipeline(session, RunRequest("smoke"))
        flows.write_text(before)
        again = open_pipeline(session, RunRequest("smoke", from_run=asked.id))
    assert again.id == asked.id
    assert again.parameters["sandbox"]["floor"] == "full"
    assert again.parameters["sandbox"]["limits"]["memory_mb"] == 300
