"""The rows of accidents that run in CI; `make test-accidents` runs all."""

from __future__ import annotations

import pytest

from .accident_rows import IN_CI, ROWS, run_accident

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.mark.parametrize("row", [ROWS[number] for number in IN_CI], ids=lambda row: row.name)
def test_after_an_accident_the_same_command_resumes_and_nothing_is_lost(row, tmp_path):
    trial = run_accident(row, tmp_path / "a folder")
    assert float(trial.notes["seconds"]) > 0
