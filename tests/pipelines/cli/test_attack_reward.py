"""``codedance attack-reward``: its table fits a terminal; its exit code reports paying hacks."""

from __future__ import annotations

import subprocess
import sys

import pytest


def attack(folder, *arguments):
    command = [sys.executable, "-c", "from codedance.pipelines.cli import main; main()"]
    return subprocess.run(
        [*command, "attack-reward", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )


@pytest.mark.slow
def test_bat_has_no_loophole_and_the_command_succeeds(tmp_path):
    done = attack(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "None of 95 reward hacks pays." in done.stdout
    assert "Known limit" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.slow
def test_a_custom_term_with_a_loophole_is_named_and_the_command_fails(tmp_path):
    (tmp_path / "terms.py").write_text("def turns(t): return len(t.turns)\n", encoding="utf-8")
    done = attack(tmp_path, "--reward", "outcome", "--term", "terms.py:turns=0.1")
    assert done.returncode == 1
    assert "reward hacks pay: " in done.stdout
    assert "four constants" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reward", "batt"), "did you mean 'bat'"),
        pytest.param(("--term", "turns"), "expected NAME=WEIGHT", marks=pytest.mark.slow),
        pytest.param(
            ("--term", "terms.py:turns=1"), "there is no file terms.py", marks=pytest.mark.slow
        ),
        (("--per-difficulty", "0"), "Invalid value for '--per-difficulty'"),
        (("--tsks", "1"), "No such option: --tsks"),
    ],
)
def test_invalid_arguments_are_rejected_in_one_line(tmp_path, arguments, message):
    done = attack(tmp_path, *arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
