"""Interface for programs and shells: one JSON document, exit codes, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime

import pytest
from codedance.pipelines.cli import completion
from codedance.pipelines.cli.document import as_plain, document
from codedance.pipelines.cli.output import column_lines, say
from codedance.pipelines.cli.runs import _HEAD, _row, fitting
from codedance.pipelines.store.lineage import StageRun
from PIL import Image

from ..tiny_runs import first_run, write_tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PROGRAM = "from codedance.pipelines.cli import main; main()"


def offered(words, incomplete, folder):
    """Return the completions that bash gets after TAB."""
    environment = {
        **os.environ,
        "_CODEDANCE_COMPLETE": "complete_bash",
        "COMP_WORDS": f"codedance {words} {incomplete}",
        "COMP_CWORD": str(len(words.split()) + 1),
    }
    program = f"import sys; sys.argv[0] = 'codedance'; {PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_presets_backends_and_runs(finished, tmp_path):
    folder = finished.home.root.parent
    assert offered("run --preset", "sm", folder) == ["smoke"]
    assert offered("evaluate --sandbox", "", folder) == ["local", "docker"]
    assert first_run(finished).id in offered("report", "smoke-", folder)
    assert "mine.jsonl" not in offered("run --tasks", "", tmp_path)
    (tmp_path / "mine.jsonl").write_text("")
    assert "mine.jsonl" in offered("run --tasks", "m", tmp_path)


def test_completion_creates_no_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CODEDANCE_DIR", raising=False)
    assert completion.runs("") == ["latest"]
    assert list(tmp_path.iterdir()) == []


def test_completion_with_a_damaged_store_and_flows_file_offers_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODEDANCE_DIR", str(tmp_path))
    (tmp_path / "store.db").write_bytes(b"no database")
    (tmp_path / "flows.yaml").write_text("presets: [")
    assert completion.runs("") == ["latest"]
    assert completion.presets("") == []


def test_completion_offers_exactly_the_valid_values():
    from codedance.envs.rewards.presets import PRESETS
    from codedance.envs.suites import loading as suites
    from codedance.envs.types import Difficulty
    from codedance.policies.inference.model_files import OWN_NAMES
    from codedance.policies.loading import NAMES
    from codedance.policies.training.memory_plan import GPUS
    from codedance.sandbox.opening import BACKENDS

    assert set(completion.REWARDS) == set(PRESETS)
    assert set(completion.GPUS) == set(GPUS)
    assert set(completion.DIFFICULTIES) == {str(difficulty) for difficulty in Difficulty}
    assert set(completion.POLICIES) == set(NAMES)
    assert set(NAMES) < OWN_NAMES
    assert set(completion.DATA_SETS) == set(suites._DATA_SETS)
    assert {name for name in BACKENDS if "unsafe" not in name} == set(completion.BACKENDS)
    for offer in (completion.one_of(*completion.GPUS), completion.policies, completion.families):
        assert len(offer("")) == len(set(offer(""))) > 0
    assert completion.families("b") == ["bars"]
    assert completion.one_of(*completion.GPUS)("h1") == ["h100"]


def test_standard_output_contains_only_the_document(capsys):
    with document(True) as publish:
        say("a word")
        publish({"loss": float("nan"), "rows": (1, 2)})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"loss": None, "rows": [1, 2]}
    assert captured.err == "a word\n"


def test_without_json_text_is_printed_and_no_document(capsys):
    with document(False) as publish:
        say("a word")
        publish({"loss": 1.0})
    assert capsys.readouterr() == ("a word\n", "")


def test_an_error_leaves_no_partial_document(capsys):
    def fail():
        with document(True):
            say("begun")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_json_lacks_are_null(value):
    assert as_plain([value]) == [None]


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor",),
        ("runs",),
        ("report",),
        ("rescore",),
        ("view",),
        ("emergence",),
        ("plan", "--gpus", "1"),
        ("play", "--family", "bars"),
        ("run", "--preset", "smoke"),
        ("sft", "--preset", "smoke", "--no-prefect"),
        ("evaluate", "--policy", "oracle", "--limit", "7"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_json_is_one_document(codedance, finished, arguments):
    code, out, error = codedance(*arguments, "--json")
    assert code == 0, error
    found = json.loads(out)
    assert found


def test_an_evaluation_is_reported_by_policy_mode_and_group(codedance, finished):
    _, out, _ = codedance("report", "latest", "--json")
    found = json.loads(out)
    cell = found["cells"]["grpo/greedy"]["all"]["accuracy"]
    assert cell["count"] == 70
    assert cell["low"] <= cell["share"] <= cell["high"]
    assert found["differences"]["greedy"]["all"]["count"] == 70
    assert found["report"].endswith("report.html")


def test_runs_lists_the_newest_first_and_by_stage(codedance, finished):
    code, out, _ = codedance("runs")
    assert code == 0
    assert first_run(finished).id in out
    assert max(len(line) for line in out.splitlines()) <= 80
    _, out, _ = codedance("runs", "--stage", "grpo", "--json")
    assert {row["stage"] for row in json.loads(out)} == {"grpo"}


def make_run(**changes):
    values = {
        "id": "evaluate-20261128-235000-a0c2",
        "stage": "evaluate",
        "key": "k",
        "preset": "quick",
        "status": "finished",
        "parent": None,
        "inputs": {},
        "outputs": {"seconds": 185.2},
        "parameters": {},
        "seed": 3,
        "code_version": "c",
        "git_commit": None,
        "error": None,
        "started_at": datetime.fromisoformat("2026-11-28 23:50"),
        "ended_at": datetime.fromisoformat("2026-11-29 00:10"),
    }
    return StageRun(**{**values, **changes})


NOW = datetime.fromisoformat("2026-11-29 01:00")


@pytest.mark.parametrize(
    ("changes", "ended", "took"),
    [
        ({}, "11-29 00:10", "3:05"),  # on another day; working time without pauses
        ({"ended_at": datetime.fromisoformat("2026-11-28 23:59")}, "23:59", "3:05"),
        ({"outputs": {}}, "11-29 00:10", "20:00"),  # a pipeline run: from start to end
        ({"outputs": {}, "ended_at": None, "status": "running"}, "–", "1:10:00"),
        ({"outputs": {"seconds": 59.7}}, "11-29 00:10", "1:00"),
    ],
)
def test_a_run_is_listed_with_its_start_end_and_duration(changes, ended, took):
    row = _row(make_run(**changes), NOW)
    assert row[-3:] == ("11-28 23:50", ended, took)


def test_a_list_of_runs_omits_redundant_columns_in_a_narrow_terminal():
    rows = [_HEAD, _row(make_run(status="interrupted"), NOW)]
    assert fitting(rows, 200)[0] == list(_HEAD)
    assert fitting(rows, 80)[0] == ["run", "status", "seed", "started UTC", "ended", "took"]
    assert fitting(rows, 79)[0] == ["run", "status", "started UTC", "ended", "took"]
    assert max(len(line) for line in column_lines(fitting(rows, 80))) <= 80
    short = [_HEAD, _row(make_run(id="sft-1", stage="sft", status="failed"), NOW)]
    assert fitting(short, 80)[0] == list(_HEAD)


def test_runs_shows_times_in_the_terminal(codedance, finished):
    _, out, _ = codedance("runs")
    head, *rows = out.splitlines()
    assert head.split("  ")[0] == "run"
    assert all(word in head for word in ("started UTC", "ended", "took"))
    run = first_run(finished)
    (line,) = [row for row in rows if row.startswith(run.id)]
    assert f"{run.started_at:%m-%d %H:%M}" in line
    assert f"{run.ended_at:%H:%M}" in line


def test_an_empty_list_of_runs_is_not_an_error(codedance, home):
    code, out, _ = codedance("runs")
    assert (code, "there is no run yet" in out) == (0, True)
    code, out, _ = codedance("runs", "--json")
    assert (code, json.loads(out)) == (0, [])


@pytest.fixture
def two_tasks(tmp_path, monkeypatch):
    """Current folder with a suite of two easy tasks."""
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    row = {"image": "a.png", "question": "Q?", "answer": "3", "split": "test"}
    lines = [json.dumps({**row, "id": name, "difficulty": "easy"}) for name in ("one", "two")]
    (tmp_path / "two.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)


def test_help_wraps_its_paragraphs_at_the_terminals_width(codedance, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = codedance("flows", "serve", "--help")
    starts = [line.strip()[:32] for line in out.splitlines()]
    assert "Ctrl-C stops everything; active runs"[:32] in starts


def test_help_shows_optional_arguments_in_single_brackets(codedance):
    for command in (("report",), ("view",), ("store", "prune"), ("serve", "model")):
        _, out, _ = codedance(*command, "--help")
        assert "[[" not in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("runs", "--stage", "sftt"), 2, "one of pipeline, curate"),
        (("report", "nothing-here"), 2, "no single run is called 'nothing-here'"),
        (("run", "--presett", "smoke"), 2, "No such option"),
        (("evaluate", "--suite", "nanno"), 2, "did you mean 'nano'"),
        (("evaluate", "--sandbox", "cloud", "--limit", "1"), 2, "no sandbox 'cloud'"),
        (("ask", "missing.png", "What?"), 2, "missing.png"),
        (("ask", ".", "What?"), 2, "a folder, not a picture"),
        (("ask", "missing.png", " "), 2, "the question is empty"),
        (
            ("play", "--suite", "two.jsonl", "--difficulty", "harder"),
            2,
            "no difficulty 'harder', only easy",
        ),
        (("play", "--suite", "two.jsonl", "--seed", "2"), 2, "no --seed 2: two.jsonl has 2 test"),
        (("attack-reward", "--term", "nonsense"), 2, "expected NAME=WEIGHT"),
    ],
)
def test_an_invalid_request_exits_with_two(codedance, home, two_tasks, arguments, code, words):
    found, out, error = codedance(*arguments)
    assert (found, out) == (code, "")
    assert words in " ".join(error.split())
    assert "Traceback" not in error


def test_a_failure_of_the_machine_exits_with_three(codedance, home, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    code, out, error = codedance("play", "--sandbox", "docker")
    assert (code, out) == (3, "")
    assert "no Docker engine answers" in error


@pytest.mark.slow
def test_a_run_continues_if_prefects_own_server_does_not_start(tmp_path):
    write_tiny(tmp_path)
    no_time = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "curate", "--preset", "smoke", "--json"],
        cwd=tmp_path,
        env={**os.environ, **no_time, "CODEDANCE_DIR": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "continuing without Prefect" in done.stderr
    assert json.loads(done.stdout)["status"] == "finished"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_deploying_reports_the_server_of_the_deployments(home, tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", PROGRAM, "flows", "deploy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said
    assert f"into {home.prefect}, since PREFECT_API_URL names no server" in said
    assert "`codedance flows serve`" in said
