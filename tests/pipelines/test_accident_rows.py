"""The rows of accidents that CI runs; `make test-accidents` runs them all."""

from __future__ import annotations

import pytest

from .accident_rows import IN_CI, ROWS, happens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.mark.parametrize("row", [ROWS[number] for number in IN_CI], ids=lambda row: row.name)
def test_after_an_accident_the_same_command_goes_on_and_nothing_is_lost(row, tmp_path):
    trial = happens(row, tmp_path / "a folder")
    assert float(trial.notes["seconds"]) > 0
