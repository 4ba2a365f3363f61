"""The command line starts fast and has clear errors."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from codedance.envs.suites.nano.suite import FAMILIES
from codedance.pipelines.cli.app import run_single
from codedance.pipelines.cli.episodes.play import read_turn
from codedance.pipelines.cli.exit_codes import code_of
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.runner import run_stage
from codedance.pipelines.runs.session import open_session
from PIL import Image

from ..makers import make_picture
from ..tiny_runs import first_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
HEAVY = ("torch", "transformers", "prefect", "mlflow", "sqlalchemy", "pydantic", "matplotlib")
HEAVY += ("numpy", "PIL", "yaml", "gymnasium", "alembic")


@pytest.fixture
def session(home):
    """A separate session without MLflow, which the commands share."""
    with open_session(home, track=False) as opened:
        yield opened


COUNTED = """
import atexit, sys
atexit.register(lambda: print("IMPORTED", *sorted(sys.modules), file=sys.stderr))
"""
BARE = """
import typer
app = typer.Typer()
app.command()(lambda: None)
app()
"""
OURS = "from codedance.pipelines.cli import main; main()"


def imported(program):
    """Return the modules that a program has imported after showing its help."""
    command = [sys.executable, "-c", COUNTED + program, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--help" in done.stdout
    return set(done.stderr.rpartition("IMPORTED ")[2].split())


def test_help_imports_little_besides_the_library_that_renders_it():
    """Few imports keep it under half a second; they are counted, since times vary by machine."""
    bare, ours = imported(BARE), imported(OURS)
    assert {name for name in HEAVY if name in ours} == set()
    others = {name for name in ours - bare if not name.startswith("codedance")}
    own = {name for name in ours if name.startswith("codedance")}
    assert len(others) <= 60, sorted(others)
    assert len(own) <= 80, sorted(own)


def test_command_line_imports_nothing_heavy():
    code = (
        "import sys; from codedance.pipelines.cli import app; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_stages_import_without_torch():
    code = (
        "import sys; import codedance.pipelines.stages.curate, codedance.pipelines.stages.sft, "
        "codedance.pipelines.stages.grpo, codedance.pipelines.stages.evaluate, "
        "codedance.pipelines.runs.session; print('torch' in sys.modules, 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_unknown_preset_is_one_clear_line(codedance, home, tiny):
    code, _, error = codedance("run", "--preset", "smokey")
    assert code == 2
    place = Path.cwd() / "flows.yaml"
    words = f"there is no preset 'smokey' in {place}, only smoke; did you mean 'smoke'?"
    assert error == f"codedance: {words}\n"


def test_typo_in_flows_yaml_stops_before_any_work(codedance, home, tiny):
    path = Path("flows.yaml")
    path.write_text(path.read_text().replace("weak_samples", "weak_sampels"))
    code, _, error = codedance("run", "--preset", "smoke")
    assert code == 2
    assert "flows.yaml:6: unknown key 'presets.smoke.curate.weak_sampels'" in error
    assert "did you mean 'weak_samples'?" in error


def test_unknown_suite_is_one_clear_line(codedance, home):
    code, _, error = codedance("evaluate", "--policy", "oracle", "--suite", "nanno")
    assert code == 2
    assert "did you mean 'nano'" in error
    assert "Traceback" not in error


def test_missing_task_file_is_one_clear_line(codedance, home, tiny):
    code, _, error = codedance("run", "--preset", "smoke", "--tasks", "none.jsonl")
    assert (code, "there is no task file" in error) == (2, True)


def test_model_folder_without_a_processor_is_named(codedance, session, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").write_text("{}")
    code, _, error = codedance("evaluate", "--policy", str(folder), "--limit", "1")
    assert code == 2
    assert "preprocessor_config.json" in error


def test_oracle_is_evaluated_and_stored(codedance, session):
    code, out, _ = codedance("evaluate", "--policy", "oracle", "--suite", "nano", "--limit", "21")
    assert code == 0
    assert "oracle: right" in out
    name = out.rpartition("stored as ")[2].strip()
    code, out, _ = codedance("report", name)
    assert code == 0
    page = (session.home.reports / name / "report.html").read_text(encoding="utf-8")
    assert "oracle/greedy" in page
    code, out, _ = codedance("rescore", name)
    assert f"{name}: 42 episodes graded again, 0 with another verdict" in out


def test_play_shows_turns_and_the_verdict(codedance, home):
    code, out, _ = codedance("play", "--family", "bars", "--difficulty", "hard")
    assert code == 0
    assert "turn 1" in out
    assert "  │ " in out
    assert "right: the answer is" in out


def test_the_error_of_play_names_the_nearest_family(codedance, home):
    code, _, error = codedance("play", "--family", "barz")
    assert (code, "did you mean 'bars'" in error) == (2, True)


def test_ask_reports_that_the_oracle_has_no_program(codedance, home, tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    code, out, _ = codedance("ask", str(tmp_path / "dot.png"), "Why?", "--policy", "oracle")
    assert code == 0
    assert "answer: unknown" in out


def test_corrupt_image_is_one_clear_line(codedance, home, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8 not a picture")
    code, _, error = codedance("ask", str(path), "What?", "--policy", "oracle")
    assert code == 2
    assert error.startswith(f"codedance: {path}")


@pytest.mark.slow
def test_ask_lists_the_families_that_a_model_was_trained_with(codedance, finished, tmp_path):
    make_picture().save(tmp_path / "photo.png")
    model = finished.store.lineage.get(first_run(finished).outputs["grpo"]).outputs["model"]
    asked = ("ask", str(tmp_path / "photo.png"))
    code, out, _ = codedance(*asked, "How many red objects are there?", "--policy", model)
    assert code == ("no answer: " in out)  # after four steps of training it may answer or not
    assert "was trained on: " in out
    assert "your question is of none of these: do not trust the answer" in out
    assert "a larger model: codedance ask --policy" in out
    trained_with = FAMILIES["digit"].phrasings[0].format(colour="red")
    code, out, _ = codedance(*asked, trained_with, "--policy", model)
    assert "your question is of the family 'digit'" in out


def test_report_and_rescore_of_a_finished_run(codedance, finished):
    run = first_run(finished)
    code, out, _ = codedance("report", run.id)
    assert code == 0
    assert "held-out tasks, greedy" in out
    assert "report.html" in out
    code, out, _ = codedance("rescore", run.id)
    assert code == 0
    assert "0 with another verdict" in out


def test_finished_run_is_shown_not_repeated(codedance, finished):
    code, out, error = codedance("run", "--preset", "smoke")
    assert code == 0
    assert "is finished already; --refresh reruns it" in error
    assert "codedance ui" in out


def test_doctor_finds_a_working_sandbox(codedance, home):
    code, out, _ = codedance("doctor")
    assert code == 0
    assert "ok   sandbox" in out


def test_doctor_detects_incompatible_versions():
    from codedance.pipelines.cli.services.doctor import BROKEN_FROM, _numbers

    assert _numbers("0.151.0") >= BROKEN_FROM["fastapi"][0]
    assert _numbers("0.150.3") < BROKEN_FROM["fastapi"][0]
    assert _numbers("2.1.0b1") >= BROKEN_FROM["sqlalchemy"][0]


def test_environment_of_embedded_servers_is_set_once(home, monkeypatch):
    from codedance.pipelines.config.home import prepare_environment

    monkeypatch.setenv("PREFECT_SERVER_API_PORT", "4711")
    prepare_environment(home)
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{home.root}/mlflow.db"
    assert os.environ["DO_NOT_TRACK"] == "true"
    assert os.environ["PREFECT_HOME"] == str(home.root / "prefect")
    assert os.environ["PREFECT_SERVER_API_PORT"] == "4711"


@pytest.mark.slow
def test_rescoring_a_run_without_an_evaluation_reports_its_changes(codedance, home, tiny):
    with open_session(home, track=False) as session:
        pipeline = open_pipeline(session, RunRequest("smoke"))
        run_stage(session, "curate", pipeline)
    code, out, _ = codedance("rescore", pipeline.id, "--json")
    assert code == 0
    assert json.loads(out)["changes"]


def test_our_own_and_foreign_errors_exit_with_three():
    def raised(kind):
        try:
            raise kind("words")
        except kind as error:
            return error

    assert code_of(raised(KeyError)) == 3
    assert code_of(raised(ValueError)) == 3
    assert code_of(raised(OSError)) == 3
    assert code_of(raised(KeyboardInterrupt)) == 130


def test_an_input_that_ends_within_a_command_is_a_failure(monkeypatch, capsys):
    def command() -> None:
        raise EOFError("Ran out of input")

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as left:
        run_single(command, "program")
    assert left.value.code == 3
    assert "EOFError: Ran out of input" in capsys.readouterr().err


def test_the_end_of_the_input_at_a_prompt_is_an_interruption(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["program"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("print(1)\n"))
    with pytest.raises(SystemExit) as left:
        run_single(lambda: read_turn(), "program")
    assert left.value.code == 130
    assert "Traceback" not in capsys.readouterr().err
