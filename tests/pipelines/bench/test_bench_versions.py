"""Comparison of two versions: figures found by their paths, pairs in turn, failures reported."""

import json
import subprocess
import sys

import pytest

from benchmarks.versions import _value, versions

MEASURED = {
    "turns": [
        {"contestant": "full", "row": "start", "seconds": [3.0, 1.0, 2.0]},
        {"contestant": "full", "row": "print", "seconds": [5.0]},
        {"contestant": "none", "row": "start", "seconds": [7.0]},
    ],
    "rounds": {"ours": [{"seconds": 4.0}]},
}
WRITE = f"{sys.executable} -c \"open('{{output}}', 'w').write('{{\\\"ours\\\": [%s]}}')\""


def test_a_path_leads_to_the_median_of_its_numbers():
    assert _value(MEASURED, "turns.contestant=full.row=start.seconds") == 2.0
    assert _value(MEASURED, "rounds.ours.0.seconds") == 4.0


def test_a_path_to_nothing_is_refused():
    with pytest.raises(ValueError, match=r"row=stop.*leads to no numbers"):
        _value(MEASURED, "turns.contestant=full.row=stop.seconds")


def test_ratios_and_all_measurements_are_written(tmp_path, capsys):
    output = tmp_path / "versions.json"
    versions(WRITE % "4", WRITE % "2", ["ours"], pairs=6, output=output)
    assert json.loads(output.read_text()) == {"ours": [[4, 2]] * 6}
    assert "before 4 s, after 2 s, ratio 2.000 (2.000 to 2.000)" in capsys.readouterr().out


def test_a_command_that_fails_ends_the_comparison():
    with pytest.raises(subprocess.CalledProcessError):
        versions(f"{sys.executable} -c 'raise SystemExit(1)'", WRITE % "2", ["ours"], pairs=6)
