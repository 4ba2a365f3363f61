"""Options that would be ignored are rejected; every option of ``evaluate`` is tested."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
import typer
from codedance.pipelines.cli.app import app
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.store.lineage import StageRequest
from typer.testing import CliRunner

GIVEN = {
    "--policy": ("oracle",),
    "--suite": ("nano:count",),
    "--limit": ("2",),
    "--preset": ("smoke",),
    "--seed": ("7",),
    "--refresh": (),
    "--from": ("latest",),
    "--workers": ("1",),
    "--sandbox": ("local",),
    "--engine": ("own",),
    "--engine-url": ("http://127.0.0.1:1",),
    "--set": ("evaluate.batch_size=3",),
    "--experiment": ("one",),
    "--json": (),
    "--base-url": ("http://127.0.0.1:9/v1",),
    "--requests-per-minute": ("60",),
    "--tokens-per-minute": ("1000",),
    "--price-input": ("1",),
    "--price-output": ("2",),
    "--notes": ("nano",),
}
_OF_A_SERVER = ("--base", "--requests", "--tokens", "--price", "--notes")
SERVER = {name for name in GIVEN if name.startswith(_OF_A_SERVER)}
ALONE = ("--policy", "--suite", "--limit")


@pytest.fixture
def evaluate(home, tiny, monkeypatch):
    """Run ``codedance evaluate`` up to the start of the work; return its resolved request."""
    begun = []
    monkeypatch.setattr(
        "codedance.pipelines.cli.analysis.judging.judge",
        lambda *given: begun.append(("alone", given)) or {},
    )
    monkeypatch.setattr(
        "codedance.pipelines.cli.training.stages.run_alone",
        lambda *given, **_: begun.append(("run", given)) or {},
    )

    def run(*names):
        begun.clear()
        words = [word for name in names for word in (name, *GIVEN[name])]
        done = CliRunner().invoke(app, ["evaluate", *words])
        return done.exit_code, (begun[0] if begun else None), done.output

    return run


def options_of(name):
    command = typer.main.get_command(app).commands[name]
    return {option.opts[0] for option in command.params} - {"--no-prefect", "--help"}


def test_every_option_of_evaluate_is_tested_here():
    assert options_of("evaluate") == set(GIVEN)


@pytest.mark.parametrize("option", sorted(set(GIVEN) - {"--policy"}))
def test_an_option_with_a_policy_is_used_or_rejected(evaluate, option):
    code, begun, error = evaluate("--policy", option)
    if option in SERVER | {"--from"}:
        assert (code, begun) == (2, None)
        assert option in error
        return
    assert code == 0
    policy, suite, limit, how = begun[1]
    heeded = {
        "--suite": suite == "nano:count",
        "--limit": limit == 2,
        "--preset": how.preset == "smoke",
        "--seed": how.seed == 7,
        "--refresh": how.fresh,
        "--sandbox": how.sandbox == "local",
        "--set": how.overrides == {"evaluate.batch_size": 3},
        "--engine": how.overrides == {"rollout.engine": "own"},
        "--engine-url": how.overrides
        == {"rollout.engine": "vllm", "rollout.urls": ["http://127.0.0.1:1"]},
    }
    assert begun[0] == "alone"
    assert policy == "oracle"
    assert heeded.get(option, True)
    assert [name for name, is_so in heeded.items() if is_so and name != option] == []


@pytest.mark.parametrize("option", sorted(set(GIVEN) - set(ALONE)))
def test_an_option_with_a_run_is_used_or_rejected(evaluate, option):
    code, begun, error = evaluate(*dict.fromkeys(("--from", option)))
    if option in SERVER:
        assert (code, begun) == (2, None)
        assert option in error
        return
    assert code == 0
    _, run_request = begun[1]
    assert begun[0] == "run"
    assert run_request.from_run == "latest"
    given = (run_request.preset, run_request.seed, run_request.fresh, run_request.sandbox)
    heeded = {
        "--preset": ("smoke", None, False, None),
        "--seed": (None, 7, False, None),
        "--refresh": (None, None, True, None),
        "--sandbox": (None, None, False, "local"),
    }
    assert given == heeded.get(option, (None, None, False, None))


@pytest.mark.parametrize("option", ALONE)
def test_a_run_cannot_be_combined_with_another_suite_or_policy(evaluate, option):
    code, begun, error = evaluate("--from", option)
    assert (code, begun) == (2, None)
    assert "name a checkpoint with --policy" in " ".join(error.split())


@pytest.mark.parametrize(
    "words",
    [
        ["flows", "serve", "--no-mlflow", "--mlflow-port", "15001"],
        ["store", "prune", "--yes", "--dry-run"],
    ],
)
def test_contradictory_options_are_rejected(home, words):
    assert CliRunner().invoke(app, words).exit_code == 2


@pytest.mark.parametrize("command", [("ui",), ("flows", "serve")])
@pytest.mark.parametrize(
    ("option", "variable"),
    [("--prefect-port", "PREFECT_API_URL"), ("--mlflow-port", "MLFLOW_TRACKING_URI")],
)
def test_a_port_is_refused_where_a_server_is_named(home, monkeypatch, command, option, variable):
    monkeypatch.setenv(variable, "http://127.0.0.1:9/api")
    done = CliRunner().invoke(app, [*command, option, "15001"])
    assert done.exit_code == 2
    said = " ".join(done.output.replace("│", " ").split())
    assert option in said
    assert f"{variable} names a server" in said


def test_a_seed_determines_the_sampled_episodes(codedance, home, tiny):
    """A former bug dropped it with --policy, so that all runs had seed 0."""
    with open_session(home, track=False) as session:
        for seed in ("7", "8", "7"):
            words = ("--policy", "random", "--preset", "smoke", "--limit", "2", "--seed", seed)
            assert codedance("evaluate", *words)[0] == 0
        found = session.store.lineage.find(stage="evaluate")
        assert sorted(run.seed for run in found) == [7, 8]


@pytest.mark.slow
def test_an_evaluation_does_not_resume_the_rerun_of_another_command(codedance, home, tiny):
    """The rerun has a claim of its own, so both would do it at once."""
    words = ("--policy", "random", "--preset", "smoke", "--limit", "2")
    assert codedance("evaluate", *words)[0] == 0
    with open_session(home, track=False) as session:
        lineage = session.store.lineage
        (first,) = lineage.find(stage="evaluate")
        lineage.mark(first.id, "interrupted")
        fresh = {**first.parameters, "fresh": "0123"}
        asked = ("evaluate", first.preset, fresh, first.inputs, first.seed, first.code_version)
        rerun = lineage.begin(StageRequest(*asked))
        assert codedance("evaluate", *words)[0] == 0
        assert lineage.get(first.id).is_finished
        assert not lineage.get(rerun.id).is_finished


@pytest.mark.parametrize("command", [["store", "list"], ["runs"]])
def test_a_limit_of_zero_lists_all(home, command):
    assert CliRunner().invoke(app, [*command, "--limit", "0"]).exit_code == 0


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("run", "--preset", ""), "--preset"),
        (("run", "--tasks="), "--tasks"),
        (("evaluate", "--policy", " ", "--limit", "1"), "--policy"),
    ],
)
def test_an_empty_value_is_rejected_and_nothing_is_started(codedance, home, words, name):
    code, out, error = codedance(*words)
    assert (code, out) == (2, "")
    assert error == f"codedance: {name} is empty: give a value, or leave it out\n"
    assert list(home.root.iterdir()) == []


@pytest.mark.parametrize("seed", ["99999999999999999999999", "-9223372036854775809"])
def test_a_seed_too_large_for_a_database_is_rejected(codedance, home, seed):
    for words in (("run", "--preset", "smoke"), ("evaluate", "--policy", "random", "--limit", "1")):
        code, _, error = codedance(*words, "--seed", seed)
        assert code == 2
        assert "--seed" in error


def test_a_number_without_a_trajectory_is_rejected_however_large(codedance, home):
    code, _, error = codedance("store", "show", "9" * 23)
    assert code == 2
    assert "there is no trajectory 9999" in error


@pytest.mark.parametrize("days", ["inf", "1e300"])
def test_an_age_without_a_valid_date_is_rejected(codedance, home, days):
    code, _, error = codedance("store", "prune", "--older-than", days)
    assert code == 2
    assert "--older-than" in error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x = (", "terms.py, line 1: SyntaxError"),
        (b"\n1 / 0", "terms.py, line 2: ZeroDivisionError"),
        (b"\x00\xff", "terms.py"),
        (b"import sys\nsys.exit(7)", "terms.py, line 2: SystemExit"),
    ],
)
def test_a_failing_file_of_reward_terms_is_named_with_its_line(
    codedance, home, tmp_path, content, said
):
    (tmp_path / "terms.py").write_bytes(content)
    code, _, error = codedance("attack-reward", "--term", f"{tmp_path / 'terms.py'}:f=1")
    assert code == 2
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("sqlite:///x.db?timeout=abc", 2, "a parameter has an invalid value"),
        ("postgresql://h/d?connect_timeout=abc", 3, "connect_timeout"),
    ],
)
def test_an_address_with_an_invalid_parameter_is_reported(
    codedance, tmp_path, monkeypatch, address, code, said
):
    monkeypatch.setenv("CODEDANCE_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("CODEDANCE_STORE_URL", address)
    found, _, error = codedance("runs")
    assert found == code
    assert said in error
    assert "Nothing answers there" not in error


def test_an_address_with_an_unsupported_driver_is_opened_with_ours(
    codedance, tmp_path, monkeypatch
):
    monkeypatch.setenv("CODEDANCE_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("CODEDANCE_STORE_URL", f"sqlite+aiosqlite:///{tmp_path}/x.db")
    assert codedance("runs")[0] == 0


def test_an_unusable_listening_address_is_named(codedance, home):
    code, _, error = codedance("serve", "model", "random", "--host", "8.8.8.8", "--port", "1")
    assert code == 3
    assert "cannot listen at 8.8.8.8:1 (" in error


@pytest.mark.slow
def test_a_closed_pipe_is_not_a_finding(tmp_path):
    command = shlex.join([sys.executable, "-m", "codedance.pipelines.cli", "runs"])
    script = f"set -o pipefail; (sleep 1; {command}) | true"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_program_with_closed_output_prints_no_error(tmp_path):
    command = [sys.executable, "-m", "codedance.pipelines.cli", "--help"]
    script = f"{' '.join(map(shlex.quote, command))} >&-"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
