"""Stages of other packages: the package in the docs adds one and replaces another."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from codedance.pipelines.cli.app import GROUPS, app
from codedance.pipelines.cli.training.stage_commands import UNUSED, unused_options
from codedance.pipelines.config.registry import (
    BUILT_IN,
    EVALUATION,
    earlier_stages,
    find_stage,
    stage,
    stage_names,
)
from codedance.pipelines.config.settings import Preset
from codedance.pipelines.config.stage_names import RESERVED

from ..tiny_runs import write_tiny

PAGE = (Path(__file__).parents[3] / "docs" / "own-stage.md").read_text(encoding="utf-8")
CODE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
ENTRIES = dict(re.findall(r'`(\w+) = "([\w.:]+)"`', PAGE))
OURS = ("curate", "sft", "grpo", "evaluate")


def install(folder: Path, name: str, code: str, entries: dict[str, str]) -> None:
    """Write a package as installed by pip: a module, and metadata with its entry points."""
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{stage} = {place}\n" for stage, place in entries.items())
    (metadata / "entry_points.txt").write_text(f"[codedance.stages]\n{lines}")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder for installed packages; the current folder has the tiny flows.yaml."""
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(write_tiny(tmp_path / "work"))
    monkeypatch.setenv("CODEDANCE_DIR", str(tmp_path / "home"))
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return folder


@pytest.fixture
def acme(site):
    install(site, "acme_stages", CODE, ENTRIES)
    return site


def command(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in a separate process that finds the installed packages."""
    done = subprocess.run(
        [sys.executable, "-m", "codedance.pipelines.cli", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def evaluated(text: str) -> object:
    """Return the value of an expression in a process that finds the installed packages."""
    program = f"import json; from codedance.pipelines.config.registry import *; {text}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_page_is_short():
    assert len(PAGE.splitlines()) < 40
    assert set(ENTRIES) == {"lengths", "evaluate"}


@pytest.mark.slow
def test_a_stage_is_added_and_one_replaced_from_the_command_to_the_report(acme):
    """The run stays readable after the package is removed."""
    shown = " ".join(re.sub("│", " ", command("--help").stdout).split())
    assert "Added by acme_stages 1.0." in shown
    assert "Replaced by acme_stages 1.0." in shown
    assert "--sandbox" not in command("sft", "--help").stdout
    setting = ("--set", "lengths.at_most=3", "--no-prefect", "--json")
    made = json.loads(command("run", "--preset", "smoke", *setting).stdout)
    assert '"lengths"' in command("runs", "--json").stdout
    again = command("lengths", *setting)
    (first,) = [line for line in again.stderr.splitlines() if "already finished" in line]
    assert "lengths-" in first
    report = (Path(os.environ["CODEDANCE_DIR"]) / "reports" / made["run"] / "report.md").read_text()
    assert re.search(r"lengths .*`lengths-\d+", report)
    program = (
        "from codedance.pipelines.store.store import open_store;"
        "from codedance.pipelines.config.home import find_home;"
        "store = open_store(find_home());"
        "runs = {run.stage: run for run in store.lineage.find()};"
        "print(json.dumps({name: [dict(run.inputs), dict(run.outputs), dict(run.parameters)]"
        " for name, run in runs.items()}))"
    )
    runs = evaluated(program)
    inputs, outputs, parameters = runs["lengths"]
    assert list(inputs) == ["curate"]
    assert outputs["long"] > 0
    assert parameters["lengths"] == {"at_most": 3}
    assert parameters["stage"]["package"] == "acme_stages 1.0"
    inputs, outputs, parameters = runs["evaluate"]
    assert list(inputs) == ["sft", "grpo", "lengths"]
    assert outputs["signed"] == "acme"
    assert outputs["tasks"] == 70
    assert parameters["evaluate"]["limit"] == 70
    for path in (acme / "acme_stages-1.0.dist-info").iterdir():
        path.unlink()
    (acme / "acme_stages-1.0.dist-info").rmdir()
    assert "lengths-" in command("store", "show", made["run"]).stdout
    command("report", made["run"])
    command("store", "verify")


@pytest.mark.slow
def test_a_changed_source_changes_the_key(acme):
    text = "print(json.dumps(origin('lengths')))"
    first = evaluated(text)
    assert first["package"] == "acme_stages 1.0"
    assert evaluated(text) == first
    (acme / "acme_stages.py").write_text(CODE.replace(" > context", " >= context"))
    assert evaluated(text)["source"] != first["source"]


@pytest.mark.slow
def test_a_preset_accepts_the_section_of_an_added_stage(acme):
    file = Path("flows.yaml")
    whole = file.read_text()
    file.write_text(whole.replace("    evaluate:", "    lengths: {at_most: 7}\n    evaluate:"))
    load = "from codedance.pipelines.config.flows_file import load_preset"
    assert evaluated(f"{load}; print(load_preset('smoke').lengths.at_most)") == 7
    file.write_text(whole.replace("    evaluate:", "    lengths: {at_mots: 7}\n    evaluate:"))
    wrong = command("run", "--preset", "smoke", "--no-prefect", code=2).stderr
    assert "unknown key 'presets.smoke.lengths.at_mots'; did you mean 'at_most'?" in wrong
    unused = command("lengths", "--sandbox", "docker", code=2).stderr
    assert "lengths does not use it" in unused


@pytest.mark.slow
def test_flows_and_deployments_follow(acme):
    program = (
        "from pathlib import Path;"
        "from codedance.pipelines import flows;"
        "from codedance.pipelines.config.flows_file import all_deployments;"
        "import codedance.pipelines.config as config;"
        "path = Path(config.__file__).with_name('flows.yaml');"
        "found = [entry for entry in all_deployments(path) if 'lengths' in entry.entrypoint];"
        "print(json.dumps([flows.lengths.name, flows.lengths.description, list(flows.FLOWS),"
        " [[one.name, one.entrypoint, one.work_pool.name] for one in found]]))"
    )
    name, description, flows, deployments = evaluated(program)
    assert name == "lengths"
    assert description.startswith("Count the curated questions that are too long.")
    assert flows == ["curate", "sft", "grpo", "lengths", "evaluate"]
    entrypoint = "codedance.pipelines.flows.lengths"
    assert deployments == [["newest", entrypoint, "codedance-process"]]


DECLARED = "from codedance.pipelines.config.registry import stage\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named"),
        (f"{DECLARED}@stage('more', inputs=('mroe',))\ndef more(context): pass", "reads 'mroe'"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (
                    "def more(context): pass",
                    "is not a stage: decorate the function with @stage",
                ),
                (
                    f"{DECLARED}@stage('less')\ndef more(context): pass",
                    "it is declared as 'less'",
                ),
                (
                    f"{DECLARED}@stage('more', inputs=('more',))\ndef more(context): pass",
                    "need each other",
                ),
                (
                    f"{DECLARED}@stage('play')\ndef more(context): pass",
                    "has another meaning: rename it",
                ),
                (
                    f"{DECLARED}@stage('More!')\ndef more(context): pass",
                    "a stage cannot be called 'More!'",
                ),
            )
        ),
    ],
)
def test_an_invalid_stage_is_named_with_its_package_and_the_fix(site, code, said):
    install(site, "wrong", code, {"more": "wrong:more"})
    assert said in command("run", "--preset", "smoke", "--no-prefect", code=2).stderr


def test_two_packages_with_the_same_stage_are_rejected(site):
    code = f"{DECLARED}@stage('more')\ndef more(context): pass"
    for name in ("first", "second"):
        install(site, name, code, {"more": f"{name}:more"})
    said = command("more", code=2).stderr
    assert re.search("(first 1.0 and second 1.0|second 1.0 and first 1.0) both declare", said)


def test_our_own_stages_are_declared_as_documented():
    assert stage_names() == OURS
    for name in OURS:
        found = find_stage(name)
        assert (found.name, found.summary) == (name, BUILT_IN[name])
        assert found.settings is Preset.model_fields[name].annotation
    assert [name for name in OURS if find_stage(name).exclusive] == ["sft", "grpo"]
    assert earlier_stages("grpo") == ("curate", "sft")
    assert earlier_stages("evaluate") == ("curate", "sft", "grpo")
    assert {name: unused_options(name) for name in OURS if name != EVALUATION} == UNUSED


def test_names_with_another_meaning_are_reserved():
    commands = {one.name or one.callback.__name__ for one in app.registered_commands}
    taken = commands | set(GROUPS) | set(Preset.model_fields)
    assert taken - set(OURS) <= RESERVED
    with pytest.raises(ValueError, match="has another meaning"):
        stage("pipeline")
