"""Stages of other packages that are wrong, or replace a section: what is said, and what works."""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path

import pytest
import typer
from codedance.pipelines.analysis.emergence import training_emergence
from codedance.pipelines.cli.services import doctor as doctors
from codedance.pipelines.config import registry
from codedance.pipelines.config.deployments import flows_model
from codedance.pipelines.config.flows_file import find_flows_file, load_preset
from codedance.pipelines.config.registry import (
    StageLoadError,
    earlier_stages,
    find_stage,
    known_names,
    origin,
    stage_names,
)
from codedance.pipelines.config.settings import EvaluateSettings, Preset, preset_model
from codedance.pipelines.config.stage_names import is_usable, name_problem
from codedance.pipelines.config.strict_model import read_as
from codedance.pipelines.config.yaml_file import SettingsError
from codedance.pipelines.runs.context import StageResult
from codedance.pipelines.stages.curate import run_curate

from ..makers import make_request
from ..tiny_runs import write_tiny
from .test_own_stages import install

HEAD = """
import datetime, functools, pathlib
from dataclasses import replace
from pydantic import BaseModel
from codedance.pipelines.config.registry import stage
from codedance.pipelines.config.strict_model import StrictModel
from codedance.pipelines.runs.context import StageResult
from codedance.pipelines.stages.evaluate import run_evaluate
"""
SHOTS = f"""{HEAD}
class Shots(StrictModel):
    shots: int = 3
@stage("evaluate", inputs=("sft", "grpo"), settings=Shots)
def evaluate(context):
    return StageResult({{"shots": context.settings.shots}})
"""
CACHED = (
    registry.entries,
    registry._loaded,
    registry._ordered,
    preset_model,
    flows_model,
)


def forget() -> None:
    for function in CACHED:
        function.cache_clear()


@pytest.fixture
def added(tmp_path, monkeypatch):
    """A function that installs a module with a stage, for this process."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def add(code: str, name: str = "more", package: str = "added_stage") -> None:
        attribute = "evaluate" if name == "evaluate" else "more"
        install(tmp_path, package, code, {name: f"{package}:{attribute}"})
        forget()

    yield add
    forget()
    for module in set(sys.modules) - before:
        if getattr(sys.modules[module], "__file__", None) and tmp_path.as_posix() in str(
            sys.modules[module].__file__
        ):
            del sys.modules[module]


def more(options: str = "", settings: str = "", body: str = "return StageResult({})") -> str:
    model = f"class Settings(StrictModel):\n    {settings}\n" if settings else ""
    given = "settings=Settings" if settings else options
    return f"{HEAD}{model}@stage('more', {given})\ndef more(context):\n    {body}\n"


def test_a_replaced_section_leaves_out_what_the_packaged_presets_say_of_ours(added):
    added(SHOTS, "evaluate")
    preset = load_preset("quick")
    assert preset.evaluate.model_dump() == {"shots": 3}
    assert preset.grpo.steps == 160
    assert read_as(preset.evaluate, EvaluateSettings) == EvaluateSettings()
    assert run_curate.decides(preset)["held_out"] == EvaluateSettings().limit


def test_a_replaced_section_keeps_the_packaged_values_of_its_own_fields(added):
    added(SHOTS.replace("shots: int = 3", "shots: int = 3\n    limit: int = 9"), "evaluate")
    preset = load_preset("quick")
    assert preset.evaluate.model_dump() == {"shots": 3, "limit": 2000}
    assert run_curate.decides(preset)["held_out"] == 2000


def test_a_replaced_section_may_take_other_values_under_a_key_of_ours(added):
    added(SHOTS.replace("shots: int = 3", "shots: int = 3\n    limit: str = 'all'"), "evaluate")
    preset = load_preset("quick")
    assert preset.evaluate.limit == "all"
    assert read_as(preset.evaluate, EvaluateSettings).limit == EvaluateSettings().limit


def test_an_unknown_key_of_the_users_own_file_stays_refused(added, tmp_path):
    added(SHOTS, "evaluate")
    write_tiny(tmp_path)
    with pytest.raises(SettingsError, match=r"unknown key 'presets.smoke.evaluate.limit'"):
        load_preset("smoke")
    find_flows_file().write_text("presets: {mine: {extends: quick, evaluate: {shots: 5}}}")
    assert load_preset("mine").evaluate.model_dump() == {"shots": 5}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (more(settings="needed: int"), r"Settings cannot be made without values \(needed"),
        (more(settings="at: object = object()"), "cannot be recorded as JSON"),
        (f"{HEAD}class S:\n    a = 1\n{more('settings=S')}", "S are no StrictModel"),
        (f"{HEAD}class S(BaseModel):\n    a: int = 1\n{more('settings=S')}", "no StrictModel"),
        (more("settings=StrictModel()"), "are no StrictModel"),
        (more("reads=('max_new_token',)"), "it reads 'max_new_token', .* max_new_tokens"),
        (more("reads='interface'"), r"its reads are the text 'interface': write \('interface',\)"),
        (more("inputs='sft'"), r"its inputs are the text 'sft': write \('sft',\)"),
        ("raise SystemExit(7)", "SystemExit: 7; correct it, or uninstall"),
        (more().replace("def more", "async def more"), "its function is async"),
        (more().replace("(context)", "(context, n)"), "with the context alone"),
    ],
)
def test_a_wrong_declaration_is_named_with_its_package_and_the_remedy(added, code, said):
    added(code)
    with pytest.raises(StageLoadError, match=f"(?s)'more' of added_stage 1.0 .*{said}"):
        stage_names()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("pass", "it returned nothing, no StageResult"),
        ("return {'n': 1}", "it returned a dict, no StageResult"),
        ("return (x for x in ())", "it returned a generator, no StageResult"),
        ("return StageResult(3)", "no StageResult"),
        ("return StageResult({'at': pathlib.Path('x')})", "its output 'at' is a PosixPath"),
        ("return StageResult({'lost': 3})", "its output 'lost' is 3, which is reserved"),
    ],
)
def test_what_is_no_result_is_refused_when_the_stage_has_run(added, body, said):
    added(more(body=body))
    with pytest.raises(StageLoadError, match=f"'more' of added_stage 1.0 has no result: .*{said}"):
        find_stage("more").run(None)


def test_a_result_is_passed_on(added):
    added(more(body="return StageResult({'n': 1, 'lost': {'weak': 2}})"))
    assert find_stage("more").run(None) == StageResult({"n": 1, "lost": {"weak": 2}})


def test_paths_and_dates_are_settings(added):
    added(more(settings="at: pathlib.Path = pathlib.Path('x'); day: datetime.date | None = None"))
    made = find_stage("more").settings(at="y", day="2026-11-29")
    assert (made.at, made.day) == (Path("y"), date(2026, 11, 29))
    assert json.dumps(made.model_dump(mode="json"))


def test_the_stages_before_one_with_an_unknown_input_are_an_error_in_words(added):
    added(more("inputs=('mroe',)"))
    with pytest.raises(StageLoadError, match=r"added_stage 1.0 reads 'mroe', which does not"):
        earlier_stages("more")


def test_the_source_of_a_wrapped_or_partial_function_counts(added, tmp_path):
    (tmp_path / "their_decorators.py").write_text(
        "import functools\n"
        "def logged(f):\n    @functools.wraps(f)\n    def inner(*a): return f(*a)\n"
        "    return inner\n"
    )
    code = more().replace("def more", "@logged\ndef more")
    added(f"from their_decorators import logged\n{code}")
    first = origin("more")["source"]
    path = tmp_path / "added_stage.py"
    path.write_text(path.read_text() + "# changed\n")
    assert origin("more")["source"] != first
    path.write_text(
        f"{HEAD}def work(context, n):\n    '''Work.'''\n"
        "more = stage('more')(functools.partial(work, n=3))\n"
    )
    del sys.modules["added_stage"]
    forget()
    assert find_stage("more").summary == "Work."
    assert len(origin("more")["source"]) == 64


@pytest.mark.parametrize(
    "name",
    [
        *("tags", "work", "flow", "page", "lost", "seconds", "extends", "overrides", "fresh"),
        *("stage", "suite_digest", "lost_inputs", "policies", "json", "sandbox", "class"),
        *("with_backend", "model_dump", "copy", "schema", "suite", "my-stage", "Mine", ""),
    ],
)
def test_a_name_with_another_meaning_cannot_be_a_stages(name):
    assert "a stage cannot be called" in name_problem(name)


def test_every_name_of_the_flows_module_and_of_presets_is_refused():
    from codedance.pipelines import flows

    folder = Path(flows.__file__).parent
    taken = {*vars(flows), *(path.stem for path in folder.glob("*.py"))} - {*known_names()}
    assert [name for name in taken if is_usable(name)] == []
    presets = {*dir(Preset), *Preset.model_fields} - {*known_names()}
    assert [name for name in presets if not name_problem(name)] == []
    assert [name for name in ("lengths", "my_stage", "weights") if name_problem(name)] == []


def test_prefect_loads_every_flow_by_its_entrypoint():
    from codedance.pipelines import flows
    from prefect.flows import load_flow_from_entrypoint

    for name in known_names():
        loaded = load_flow_from_entrypoint(f"codedance.pipelines.flows.{name}")
        assert loaded is flows.FLOWS[name] is getattr(flows, name)
    assert set(known_names()) <= set(dir(flows))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = flows.nothing


def test_an_entry_point_with_an_unusable_name_hides_no_command_and_is_refused(added):
    added(more(), "doctor")
    assert "doctor" not in known_names()
    with pytest.raises(StageLoadError, match=r"'doctor' of added_stage 1.0 .* another meaning"):
        stage_names()


def test_the_doctor_reports_a_broken_package_in_one_line_and_goes_on(added, monkeypatch, capsys):
    added("import nowhere_to_be_found")
    checks = (doctors.check_stages, doctors.check_flows, doctors.check_torchvision)
    monkeypatch.setattr(doctors, "CHECKS", (*checks, lambda: [doctors.Finding("last", "there")]))
    with pytest.raises(typer.Exit):
        doctors.doctor()
    said = " ".join(capsys.readouterr().out.split())
    assert "BAD stages the stage 'more' of added_stage 1.0 cannot be used" in said
    assert "last there 1 to fix (BAD)" in said


def test_a_run_is_listed_whatever_stands_in_its_outputs(store):
    run = store.lineage.begin(make_request("evaluate"))
    store.lineage.mark(run.id, "finished", outputs={"lost": "lost-1", "seconds": "seconds-1"})
    (found,) = store.lineage.find()
    assert (found.lost, found.seconds, found.is_complete) == (0, 0.0, True)


def test_a_training_without_a_curation_has_no_emergence(store):
    run = store.lineage.begin(make_request("grpo", inputs={"sft": "sft-1"}))
    assert training_emergence(store, run) is None
