"""The demonstration of distillation trains and examines all that it compares."""

from __future__ import annotations

import pytest

from benchmarks.distillation import TRAININGS, main


@pytest.mark.slow
def test_every_training_is_a_row_of_the_table(capsys):
    main(["--steps", "1", "--tasks", "2"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    names = [row.split("|")[1].strip() for row in rows]
    assert names[2:] == ["teacher", "student, before", *(f"1 steps: {one}" for one in TRAININGS)]
    assert [row.rstrip(" |").endswith("–") for row in rows[2:]] == [True, True, True, False, False]
    assert all(row.count("%") == 6 for row in rows[2:])
