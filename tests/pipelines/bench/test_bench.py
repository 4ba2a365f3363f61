"""The benchmark's arithmetic, its tables, and a small run."""

import json
import time

import pytest

from benchmarks.measuring.contestants import FreshPython, bare_exec, check_bytes
from benchmarks.measuring.programs import PROGRAMS, input_picture
from benchmarks.measuring.rounds import Result, Row, run_rounds
from benchmarks.measuring.sandbox import SandboxBench
from benchmarks.measuring.tables import as_json, closing_lines, tables


class Sleeper:
    """A contestant with a known duration of its work."""

    def __init__(self, name, seconds, stride=1):
        self.name, self.seconds, self.stride = name, seconds, stride
        self.worked = 0

    def work(self, row):
        return None if row == "never" else self._sleep

    def close(self):
        pass

    def _sleep(self):
        self.worked += 1
        time.sleep(self.seconds)


ROW = Row("nap", "quick")


def test_ratios_are_taken_within_a_round_before_the_median():
    """2/1, 30/10 and 4/4: their median is 2 for any speed of the rounds."""
    result = Result((ROW,), {("quick", "nap"): [1.0, 10.0, 4.0], ("slow", "nap"): [2.0, 30.0, 4.0]})
    assert result.ratio("slow", "nap", "quick") == 2.0
    assert result.median("slow", "nap") == 4.0


def test_rounds_without_a_partner_do_not_count_in_a_ratio():
    result = Result((ROW,), {("quick", "nap"): [1.0, None], ("slow", "nap"): [3.0, 50.0]})
    assert result.ratio("slow", "nap", "quick") == 3.0
    assert result.ratio("slow", "absent", "quick") is None


def test_a_first_round_warms_up_and_slow_contestants_skip_rounds():
    quick, slow = Sleeper("quick", 0.001), Sleeper("slow", 0.1, stride=2)
    result = run_rounds([quick, slow], [ROW, Row("never", "quick")], rounds=4, seed=0)
    assert (quick.worked, slow.worked) == (5, 3)
    assert [value is None for value in result.seconds["slow", "nap"]] == [False, True, False, True]
    assert result.seconds["quick", "never"] == [None] * 4
    assert result.ratio("slow", "nap", "quick") > 1.5


def test_repeats_count_as_their_median():
    quick = Sleeper("quick", 0.001)
    result = run_rounds([quick], [Row("nap", "quick", repeats=5)], rounds=2, seed=0)
    assert quick.worked == 15
    assert len(result.seconds["quick", "nap"]) == 2


@pytest.mark.parametrize("row", PROGRAMS)
def test_every_program_has_the_expected_output_in_every_contestant(row):
    """A fresh interpreter counts the returned bytes; bare exec would raise."""
    picture = input_picture(0)
    for contestant in (bare_exec(picture), FreshPython(picture)):
        contestant.work(row)()
        contestant.close()


def test_a_turn_without_output_is_not_a_fast_turn():
    with pytest.raises(RuntimeError, match="expected 2 bytes"):
        check_bytes(b"", 2)


@pytest.fixture(scope="module")
def report():
    patch = pytest.MonkeyPatch()
    patch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    said = []
    yield SandboxBench(rounds=1, sessions=6, seed=1, on_progress=said.append).run()
    patch.undo()


@pytest.mark.slow
def test_a_run_measures_our_isolation_levels_and_lists_missing_contestants(report):
    assert "docker" in report.missing
    assert "docker exec" in report.missing
    assert report.tiers["no isolation"].startswith("none")
    assert {"bare exec", "no isolation", "fresh python -c"} <= set(report.turns.names)
    assert report.turns.median("fresh python -c", "cycle") is None
    assert report.turns.ratio("fresh python -c", "print", "no isolation") > 5
    has_walls = bool({"full", "confined"} & set(report.tiers))
    assert (None if report.crowd is None else report.crowd.sessions) == (6 if has_walls else None)


@pytest.mark.slow
def test_a_report_fits_a_terminal_and_a_file(report):
    for table in tables(report):
        widths = [
            max(len(row[n]) for row in (table.head, *table.rows)) for n in range(len(table.head))
        ]
        assert sum(widths) + 2 * len(widths) <= 80, table.title
    lines = list(closing_lines(report))
    assert any(line.startswith("skipped docker exec: ") for line in lines)
    data = json.loads(as_json(report))
    assert data["seed"] == 1
    assert data["machine"]["cores"] >= 1
    entries = {(entry["contestant"], entry["row"]): entry for entry in data["turns"]}
    assert entries["no isolation", "print"]["ratio"] > 0
    assert len(entries["no isolation", "print"]["seconds"]) == 1
    layers = {entry["contestant"] for entry in data["layers"]}
    assert {"fork only", "+ rlimits", "+ seccomp", "+ landlock"} <= layers
