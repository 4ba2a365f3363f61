"""Options that would be ignored are refused; every option of ``evaluate`` is one or the other."""

from __future__ import annotations

import pytest
import typer
from codedance.pipelines.cli.app import app
from codedance.pipelines.desk import open_desk
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
    "--experiment": ("one",),
    "--json": (),
    "--base-url": ("http://127.0.0.1:9/v1",),
    "--requests-per-minute": ("60",),
    "--tokens-per-minute": ("1000",),
    "--price-input": ("1",),
    "--price-output": ("2",),
}
SERVER = {n for n in GIVEN if n.startswith(("--base", "--requests", "--tokens", "--price"))}
ALONE = ("--policy", "--suite", "--limit")


@pytest.fixture
def evaluate(home, tiny, monkeypatch):
    """Run ``codedance evaluate`` up to where the work would begin; gives what is then known."""
    begun = []
    monkeypatch.setattr(
        "codedance.pipelines.cli.judging.judge", lambda *given: begun.append(("alone", given)) or {}
    )
    monkeypatch.setattr(
        "codedance.pipelines.cli.stages.run_alone",
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
    return {option.opts[0] for option in command.params} - {"--prefect", "--help"}


def test_every_option_of_evaluate_is_looked_at_here():
    assert options_of("evaluate") == set(GIVEN)


@pytest.mark.parametrize("option", sorted(set(GIVEN) - {"--policy"}))
def test_an_option_beside_a_policy_is_heeded_or_refused(evaluate, option):
    code, begun, told = evaluate("--policy", option)
    if option in SERVER | {"--from"}:
        assert (code, begun) == (2, None)
        assert option in told
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
    }
    assert begun[0] == "alone"
    assert policy == "oracle"
    assert heeded.get(option, True)
    assert [name for name, is_so in heeded.items() if is_so and name != option] == []


@pytest.mark.parametrize("option", sorted(set(GIVEN) - set(ALONE)))
def test_an_option_beside_a_run_is_heeded_or_refused(evaluate, option):
    code, begun, told = evaluate(*dict.fromkeys(("--from", option)))
    if option in SERVER:
        assert (code, begun) == (2, None)
        assert option in told
        return
    assert code == 0
    _, wish = begun[1]
    assert begun[0] == "run"
    assert wish.from_run == "latest"
    given = (wish.preset, wish.seed, wish.fresh, wish.sandbox)
    heeded = {
        "--preset": ("smoke", None, False, None),
        "--seed": (None, 7, False, None),
        "--refresh": (None, None, True, None),
        "--sandbox": (None, None, False, "local"),
    }
    assert given == heeded.get(option, (None, None, False, None))


@pytest.mark.parametrize("option", ALONE)
def test_a_run_goes_with_no_other_suite_or_policy(evaluate, option):
    code, begun, told = evaluate("--from", option)
    assert (code, begun) == (2, None)
    assert "name a checkpoint with --policy" in " ".join(told.split())


@pytest.mark.parametrize(
    "words",
    [
        ["claims", "--report", "--jobs", "2"],
        ["claims", "--report", "--only", "sft/*"],
        ["flows", "serve", "--no-mlflow", "--mlflow-port", "15001"],
        ["store", "prune", "--yes", "--dry-run"],
    ],
)
def test_options_that_contradict_each_other_are_refused(home, words):
    assert CliRunner().invoke(app, words).exit_code == 2


def test_a_seed_draws_the_sampled_episodes(codedance, home, tiny):
    """With --policy it was dropped once, and all runs were the one of seed 0."""
    with open_desk(home, track=False) as desk:
        for seed in ("7", "8", "7"):
            words = ("--policy", "random", "--preset", "smoke", "--limit", "2", "--seed", seed)
            assert codedance("evaluate", *words)[0] == 0
        found = desk.store.lineage.find(stage="evaluate")
        assert sorted(run.seed for run in found) == [7, 8]


@pytest.mark.parametrize("command", [["store", "list"], ["runs"]])
def test_a_limit_of_none_lists_all(home, command):
    assert CliRunner().invoke(app, [*command, "--limit", "0"]).exit_code == 0
