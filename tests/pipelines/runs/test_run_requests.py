"""What a run is asked for is what it does and records, also with the settings of earlier runs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from codedance.pipelines.config import deployments, registry, settings
from codedance.pipelines.config.yaml_file import SettingsError
from codedance.pipelines.runs.overrides import OVERRIDES
from codedance.pipelines.runs.requests import RunRequest, open_pipeline, reopen_pipeline
from codedance.pipelines.runs.runner import (
    StageError,
    find_input,
    resolved_run,
    run_stage,
    unfinished_stages,
)
from codedance.pipelines.stages.finish import finish_pipeline, is_finished_by

from ..stages.test_own_stages import install
from ..tiny_runs import TINY, first_run

CACHED = (
    registry.entries,
    registry._loaded,
    registry._ordered,
    settings.preset_model,
    deployments.flows_model,
)
DECLARED = """
from codedance.pipelines.config.registry import stage
from codedance.pipelines.config.strict_model import StrictModel
from codedance.pipelines.runs.context import StageResult
class Settings(StrictModel):
    at_most: int = 3
"""
AFTER = f"""{DECLARED}
@stage("sum_up", inputs=("evaluate",), settings=Settings)
def sum_up(context):
    \"\"\"Sum up.\"\"\"
    return StageResult({{"count": context.settings.at_most}})
"""
REPLACED = """
from dataclasses import replace
from codedance.pipelines.runs.context import StageResult
from codedance.pipelines.stages.evaluate import run_evaluate
def signed(context):
    return StageResult({**context.store.lineage.find(stage="evaluate")[-1].outputs, "signed": 1})
evaluate = replace(run_evaluate, run=signed, runs_code=False)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package with a stage in this process, and remove it again."""
    folder = tmp_path / "site"
    folder.mkdir()

    def forget():
        importlib.invalidate_caches()
        for one in CACHED:
            one.cache_clear()

    def install_one(name, code, entries):
        sys.modules.pop(name, None)
        install(folder, name, code, entries)
        forget()

    def remove(name):
        for path in (folder / f"{name}-1.0.dist-info").iterdir():
            path.unlink()
        (folder / f"{name}-1.0.dist-info").rmdir()
        forget()

    monkeypatch.syspath_prepend(str(folder))
    install_one.remove = remove
    yield install_one
    monkeypatch.undo()
    forget()


def opened(session, stage=None, **asked):
    return open_pipeline(session, RunRequest(**asked), stage=stage)


def preset_of(run):
    return resolved_run(run).preset


def edit(before, after):
    path = Path("flows.yaml")
    path.write_text(path.read_text().replace(before, after))


def test_a_stage_that_was_added_or_replaced_is_run_in_a_finished_run(finished, installed):
    run = opened(finished, preset="smoke")
    assert (run.is_finished, unfinished_stages(finished, run)) == (True, ())
    installed("replaced", REPLACED, {"evaluate": "replaced:evaluate"})
    again = opened(finished, preset="smoke")
    assert (again.id, again.status) == (run.id, "running")
    assert unfinished_stages(finished, again) == ("evaluate",)
    run_stage(finished, "evaluate", again)
    finish_pipeline(finished, again)
    assert opened(finished, preset="smoke").is_finished
    installed.remove("replaced")
    assert unfinished_stages(finished, opened(finished, preset="smoke")) == ("evaluate",)


def test_an_evaluation_does_not_finish_a_run_that_lacks_a_stage(finished, installed):
    installed(
        "summed",
        AFTER.replace(", settings=Settings", "").replace("context.settings.at_most", "4"),
        {"sum_up": "summed:sum_up"},
    )
    run = opened(finished, "evaluate", from_run=first_run(finished).id)
    run_stage(finished, "evaluate", run)
    finish_pipeline(finished, run)
    again = opened(finished, preset="smoke")
    assert (again.id, again.status) == (run.id, "running")
    assert not is_finished_by(finished, "grpo", again)
    run_stage(finished, "sum_up", again)
    assert is_finished_by(finished, "sum_up", again)
    finish_pipeline(finished, again)
    done = opened(finished, preset="smoke")
    assert (done.id, done.is_finished) == (run.id, True)
    other = opened(finished, preset="smoke", seed=5)
    with pytest.raises(StageError, match="run `codedance sum-up` first"):
        find_input(finished, other, "sum_up")


def test_a_finished_run_keeps_the_time_of_its_end(codedance, finished):
    words = ("--preset", "smoke", "--no-prefect")
    assert codedance("evaluate", *words)[0] == 0  # records the report's place in this copy
    before = first_run(finished)
    for command in ("curate", "evaluate"):
        assert codedance(command, *words)[0] == 0
    assert first_run(finished) == before


def test_settings_of_the_sandbox_decide_what_runs_code(finished):
    run = first_run(finished)
    changed = {"sandbox.limits.output_characters": 3}
    curation = opened(finished, "curate", preset="smoke", overrides=changed)
    assert unfinished_stages(finished, curation, ["curate"]) == ("curate",)
    training = opened(finished, "grpo", from_run=run.id, sandbox="docker")
    assert unfinished_stages(finished, training) == ("grpo", "evaluate")
    assert unfinished_stages(finished, run, ["sft"]) == ()


def test_an_option_replaces_the_recorded_override_of_the_same(finished):
    weak = {"sandbox.backend": "unsafe-subprocess", "grpo.steps": 2}
    first = opened(finished, "grpo", from_run=first_run(finished).id, overrides=weak)
    second = opened(finished, "grpo", from_run=first.id, sandbox="docker")
    third = opened(finished, "grpo", from_run=second.id)
    for run in (second, third):
        assert preset_of(run).sandbox.backend == "docker"
        assert run.outputs[OVERRIDES] == {"grpo.steps": 2}
    asked = opened(finished, "curate", preset="smoke", overrides={"suite": "nano:bars"})
    other = opened(finished, "curate", from_run=asked.id, suite="nano:count")
    assert OVERRIDES not in other.outputs
    assert preset_of(opened(finished, "curate", from_run=other.id)).suite == "nano:count"


def test_the_newest_of_recorded_overrides_wins(finished):
    run = first_run(finished)
    for number, overrides in enumerate(({"grpo.steps": 2}, {"grpo": {"steps": 6}})):
        run = opened(finished, "grpo", from_run=run.id, overrides=overrides)
        assert preset_of(run).grpo.steps == (2, 6)[number]
    run = opened(finished, "grpo", from_run=run.id, overrides={"grpo.steps": 4})
    assert (preset_of(run).grpo.steps, run.outputs[OVERRIDES]) == (4, {"grpo.steps": 4})


@pytest.mark.parametrize(
    ("stage", "overrides", "said"),
    [
        ("sft", {"sandbox.backend": "docker"}, "sft does not read sandbox"),
        ("sft", {"max_new_tokens": 5}, "sft does not read max_new_tokens"),
        ("sft", {"server.base_url": "http://x"}, "having no policy openai:MODEL"),
        ("evaluate", {"server": {"concurrency": 3}}, "having no policy openai:MODEL"),
        ("evaluate", {"alarms.window": 3}, "evaluate does not read alarms"),
        (None, {"server.concurrency": 3}, "no stage reads it, having no policy openai:MODEL"),
        ("grpo", {"grpo.steps": 2, "grpo": {"steps": 5}}, "is set already"),
        ("grpo", {"grpo": {}}, "an empty mapping sets nothing"),
    ],
)
def test_an_override_that_nothing_reads_is_refused(finished, stage, overrides, said):
    asked = {"preset": "smoke"} if stage is None else {"from_run": first_run(finished).id}
    before = finished.store.lineage.find()
    with pytest.raises(SettingsError, match=said):
        opened(finished, stage, **asked, overrides=overrides)
    assert finished.store.lineage.find() == before


def test_settings_of_a_server_go_with_a_policy_behind_one(finished):
    overrides = {"curate.weak": "openai:m", "server.concurrency": 3}
    run = opened(finished, "curate", preset="smoke", overrides=overrides)
    assert preset_of(run).server.concurrency == 3
    assert preset_of(opened(finished, "grpo", overrides={"alarms.window": 3})).alarms.window == 3
    boxed = opened(
        finished,
        "sft",
        from_run=first_run(finished).id,
        overrides={"interface": "box", "sandbox.limits.images": 3},
    )
    assert unfinished_stages(finished, boxed, ["sft"]) == ("sft",)


def test_another_suite_than_the_curations_is_refused(finished):
    run = first_run(finished)
    with pytest.raises(SettingsError, match="takes the tasks of the curation as they are"):
        opened(finished, "sft", from_run=run.id, suite="nano:bars")
    assert opened(finished, "sft", from_run=run.id, suite="nano").id == run.id


def test_a_later_stage_finds_its_inputs_beside_an_override_of_its_own(finished):
    run = first_run(finished)
    changed = opened(finished, "grpo", preset="smoke", overrides={"grpo.steps": 2})
    assert changed.id != run.id
    assert changed.outputs["sft"] == run.outputs["sft"]
    edit("sft: {steps: 4", "sft: {steps: 5")
    with pytest.raises(StageError, match="grpo needs a finished curate"):
        opened(finished, "grpo", preset="smoke", overrides={"grpo.steps": 2})


def test_the_record_says_what_inherited_stages_were_made_with(finished):
    with Path("flows.yaml").open("a") as flows:
        flows.write("  big: {extends: smoke, sft: {steps: 77}, grpo: {steps: 7}}\n")
    run = opened(finished, "grpo", preset="big", from_run=first_run(finished).id)
    assert (run.preset, preset_of(run).sft.steps, preset_of(run).grpo.steps) == ("big", 4, 7)
    assert run.outputs["sft"] == first_run(finished).outputs["sft"]


def test_what_a_run_inherited_stays_until_all_stages_are_asked_for(finished):
    """With other settings its curation would be another: only the whole pipeline makes it anew."""
    asked = {"max_new_tokens": 13}
    run = opened(finished, "grpo", from_run=first_run(finished).id, overrides=asked)
    assert unfinished_stages(finished, reopen_pipeline(finished, run.id)) == ("grpo", "evaluate")
    assert run_stage(finished, "curate", run).id == run.outputs["curate"]
    whole = opened(finished, preset="smoke", overrides=asked)
    assert whole.id == run.id
    assert unfinished_stages(finished, whole)[0] == "curate"


def test_a_preset_of_the_same_values_keeps_its_name(finished):
    with Path("flows.yaml").open("a") as flows:
        flows.write("  mine: {extends: smoke}\n")
    run = opened(finished, "curate", preset="mine")
    assert (run.preset, run.id.startswith("mine-")) == ("mine", True)
    curation = run_stage(finished, "curate", run)
    assert curation.id == first_run(finished).outputs["curate"]
    assert opened(finished, "curate", preset="mine").id == run.id


def test_a_task_file_of_an_override_is_found_from_any_folder(finished, monkeypatch):
    Path("here").mkdir()
    source = Path(__file__).parents[3] / "examples" / "own_family.py"
    registers_a_term = '@register_reward_term("brevity", weight=0.1)\n'
    assert registers_a_term in source.read_text()  # it would hold for all tests of this process
    Path("here/mine.py").write_text(source.read_text().replace(registers_a_term, ""))
    flows = Path("flows.yaml").resolve()
    monkeypatch.chdir("here")
    Path("flows.yaml").write_text(flows.read_text())
    run = opened(finished, "curate", preset="smoke", overrides={"suite": "mine.py"})
    monkeypatch.chdir(flows.parent)
    again = opened(finished, "curate", from_run=run.id)
    assert again.id == run.id
    assert run.outputs[OVERRIDES] == {"suite": str(flows.parent / "here" / "mine.py")}


def test_what_was_set_for_a_package_that_is_gone_is_named_with_the_remedy(finished, installed):
    installed("summed", AFTER, {"sum_up": "summed:sum_up"})
    asked = {"preset": "smoke", "overrides": {"sum_up.at_most": 9}}
    run = opened(finished, **asked)
    for stage in registry.stage_names():
        run_stage(finished, stage, run)
    installed.remove("summed")
    with pytest.raises(
        SettingsError, match=r"'sum_up' \(of summed 1.0\): install .*--preset smoke"
    ):
        opened(finished, "grpo", from_run=run.id)
    with pytest.raises(StageError, match=r"no installed stage has \(sum_up\): install"):
        resolved_run(run)
    assert opened(finished, "grpo", preset="smoke", from_run=run.id).outputs["sft"]


def test_a_flow_run_that_is_retried_after_an_edit_continues_its_run(finished):
    for is_fresh in (False, True):
        asked = {"preset": "smoke", "seed": 6, "fresh": is_fresh, "token": f"flow {is_fresh}"}
        run = opened(finished, **asked)
        edit("grpo: {steps: 3", "grpo: {steps: 9")
        again = opened(finished, **asked)
        assert (again.id, preset_of(again).grpo.steps) == (run.id, 3)
        other = opened(finished, **{**asked, "token": "another"})
        assert preset_of(other).grpo.steps == 9
        Path("flows.yaml").write_text(TINY)


def test_a_command_continues_a_run_by_its_id_after_an_edit(codedance, finished):
    run = opened(finished, preset="smoke", seed=6)
    finished.store.lineage.mark(run.id, "interrupted", outputs=first_run(finished).outputs)
    edit("grpo: {steps: 3", "grpo: {steps: 9")
    finished.stop.request()
    code, said, _ = codedance("run", "--resume", run.id, "--no-prefect")
    assert code == 130
    assert f"stopped; `codedance run --resume {run.id} --no-prefect` resumes it" in said
    assert first_run(finished).parameters["grpo"]["steps"] == 3
    words = ("grpo", "--no-prefect", "--from", run.id, "--set", "grpo={beta: 0.5}")
    code, said, _ = codedance(*words)
    newest = finished.store.lineage.find(stage="pipeline")[0].id
    assert "'grpo={beta: 0.5}'` resumes it, or after an edit" in said
    assert f"`codedance run --resume {newest}`" in said


@pytest.mark.parametrize(
    "words",
    [
        ("--preset", "quick"),
        ("--seed", "0"),
        ("--suite", "nano"),
        ("--refresh",),
        ("--sandbox", "local"),
        ("--set", "grpo.steps=3"),
    ],
)
def test_a_run_that_is_continued_takes_no_option_that_decides_it(codedance, finished, words):
    code, _, said = codedance("run", "--resume", "latest", *words)
    assert code == 2
    assert "continues a run as it was begun" in " ".join(said.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sandbox", "local", "--set", "sandbox={backend: docker}"), "--sandbox is given too"),
        (("--limit", "2", "--set", "evaluate={limit: 9}"), "--limit is given too"),
        (("--set", "server.base_url=http://x"), "an evaluation of random reads"),
        (("--set", "evaluate={}"), "an empty mapping sets nothing"),
    ],
)
def test_an_evaluation_of_one_policy_refuses_what_it_would_ignore(codedance, home, words, said):
    code, out, error = codedance("evaluate", "--policy", "random", *words)
    assert (code, out) == (2, "")
    assert said in error


def test_an_evaluation_behind_a_server_refuses_an_address_given_twice(codedance, home):
    words = ("--base-url", "http://127.0.0.1:9", "--set", "server={base_url: x}")
    code, _, error = codedance("evaluate", "--policy", "openai:m", *words)
    assert (code, "--base-url is given too" in error) == (2, True)


def test_an_evaluation_records_and_is_decided_by_all_that_it_resolved_to(
    codedance, finished, monkeypatch
):
    words = ("evaluate", "--policy", "random", "--preset", "smoke", "--limit", "1")
    origins = ({}, {"package": "acme 1.0"})
    for limit in ("900", "901"):
        for origin in origins:
            monkeypatch.setattr(
                "codedance.pipelines.runs.stage_parameters.origin", lambda _, o=origin: o
            )
            set_limit = ("--set", f"sandbox.limits.output_characters={limit}")
            assert codedance(*words, *set_limit)[0] == 0
    runs = [run for run in finished.store.lineage.find(stage="evaluate") if run.parent is None]
    assert len(runs) == 4
    assert {run.preset for run in runs} == {"smoke"}
    assert {run.parameters["sandbox"]["limits"]["output_characters"] for run in runs} == {900, 901}
    assert runs[0].parameters["stage"] == origins[1]


def test_the_evaluations_command_follows_a_replacement(codedance, finished, installed):
    installed("replaced", REPLACED, {"evaluate": "replaced:evaluate"})
    for words in (("--policy", "random"), ()):
        code, _, error = codedance("evaluate", *words, "--sandbox", "docker")
        assert (code, "evaluate does not use it" in error) == (2, True)
