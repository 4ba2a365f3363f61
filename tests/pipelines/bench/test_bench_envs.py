"""The environment benchmark: a small run, its tables, and its errors."""

import json

import pytest
from codedance.pipelines.runs.machine import describe_machine

from benchmarks.measuring import env_trial, envs
from benchmarks.measuring.env_tables import env_json, env_lines, env_tables
from benchmarks.measuring.env_trial import ASYNC, KINDS, OURS, SYNC, Trial
from benchmarks.measuring.envs import EnvsBench, TrialError, steps_of


@pytest.fixture(scope="module")
def report():
    patch = pytest.MonkeyPatch()
    patch.setattr(envs, "_STEPS_OF_MEMBERS", 10)
    said = []
    yield EnvsBench(rounds=1, counts=[2], seed=3, on_progress=said.append).run()
    patch.undo()
    assert len(said) == len(KINDS)


@pytest.mark.slow
def test_a_run_measures_every_kind_and_finds_no_leftovers(report):
    assert set(report.trials) == {(kind, 2) for kind in KINDS}
    for (kind, _), (trial,) in report.trials.items():
        assert trial.steps_a_second > 0
        assert trial.first_step_seconds > 0
        assert trial.left_processes == 0
        assert trial.processes >= (6 if kind == ASYNC else 3)  # workers, zygotes, sessions
    assert report.ratio(2, "first_step_seconds") > 0


@pytest.mark.slow
def test_a_report_fits_a_terminal_and_a_file(report):
    for table in env_tables(report):
        widths = [
            max(len(row[n]) for row in (table.head, *table.rows)) for n in range(len(table.head))
        ]
        assert sum(widths) + 2 * len(widths) <= 80
        assert [row[0] for row in table.rows] == list(KINDS)
    assert any(line.startswith("ours to AsyncVectorEnv at 2: steps") for line in env_lines(report))
    data = json.loads(env_json(report))
    assert {one["kind"] for one in data["trials"]} == set(KINDS)
    assert len({one["rounds"][0]["digest"] for one in data["trials"]}) == 1


def by_hand(**changes):
    fields = {"first_step_seconds": 1.0, "steps_a_second": 10.0, "memory_mb": 50.0}
    fields |= {"processes": 3, "left_processes": 0, "left_mb": 0.5, "digest": "same"}
    return Trial(**(fields | changes))


def reported(trials):
    return envs.EnvsReport(describe_machine(), 0.0, 0.0, 2, 0, (4,), trials, {"4 of it": "no room"})


def test_ratios_are_computed_within_a_round():
    """The ratios are 4/2, 9/3 and 5/5; their median is 2."""
    pairs = [(4.0, 2.0), (9.0, 3.0), (5.0, 5.0)]
    trials = {
        (OURS, 4): [by_hand(steps_a_second=ours) for ours, _ in pairs],
        (ASYNC, 4): [by_hand(steps_a_second=theirs) for _, theirs in pairs],
    }
    assert reported(trials).ratio(4, "steps_a_second") == 2.0


def test_a_missing_measurement_is_a_dash_with_a_note():
    report = reported({(OURS, 4): [by_hand(memory_mb=None)], (SYNC, 4): [by_hand()]})
    rows = {row[0]: row for row in next(iter(env_tables(report))).rows}
    assert set(rows[ASYNC][1:]) == {"–"}
    assert rows[OURS][3] == "–"
    assert report.ratio(4, "steps_a_second") is None
    assert "skipped 4 of it: no room" in list(env_lines(report))


def test_different_trajectories_stop_the_benchmark(monkeypatch):
    made = iter("abc")
    monkeypatch.setattr(envs, "_trial", lambda *_: by_hand(digest=next(made)))
    with pytest.raises(TrialError, match="different trajectories"):
        EnvsBench(rounds=1, counts=[1]).run()


def test_a_failed_trial_reports_its_last_line(monkeypatch):
    monkeypatch.setattr(envs, "KINDS", {"no such kind": {}})
    with pytest.raises(TrialError, match="1 of no such kind failed with status 1: KeyError"):
        EnvsBench(rounds=1, counts=[1]).run()


def test_processes_that_would_not_fit_are_left_out(monkeypatch):
    monkeypatch.setattr(envs, "available_mb", lambda: 1000.0)
    monkeypatch.setattr(envs, "_trial", lambda *_: by_hand())
    report = EnvsBench(rounds=1, counts=[64]).run()
    assert set(report.trials) == {(OURS, 64), (SYNC, 64)}
    assert report.missing[f"64 of {ASYNC}"].startswith("about 4 GB")


@pytest.mark.parametrize("count", [1, 8, 64, 256])
def test_a_trial_consists_of_whole_episodes(count):
    assert steps_of(count) % len(env_trial.TURNS) == 0
    assert steps_of(count) >= 2 * len(env_trial.TURNS)
