"""Tables of reward hacks, before and after: which values change, and what is not counted."""

import pytest

from benchmarks.measuring import reward_hacks_side
from benchmarks.reward_hacks import tables_of


def hack(name, gain, *, pays, is_limit=False):
    return {"name": name, "against": "tool", "is_limit": is_limit, "gain": gain, "pays": pays}


def test_a_cell_has_both_values_where_they_differ():
    before = [hack("hide", 0.964, pays=True), hack("sleep", -0.2, pays=False)]
    after = [hack("hide", 0.0, pays=False), hack("sleep", -0.2, pays=False)]
    counted, others = tables_of({"bat": before}, {"bat": after})
    assert counted.splitlines()[2:] == [
        "| hide | tool | **+0.96** → 0.00 |",
        "| sleep | tool | −0.20 |",
        "| **hacks that pay, of 2** | | 1 → 0 |",
    ]
    assert len(others.splitlines()) == 2


def test_a_known_limit_is_shown_and_not_counted():
    known = [hack("pixel", 1.4, pays=False, is_limit=True)]
    counted, others = tables_of({"bat": known}, {"bat": known})
    assert "of 0** | | 0 |" in counted
    assert others.splitlines()[2:] == ["| pixel | tool | +1.40 |"]


def test_a_process_that_imports_another_version_fails(tmp_path):
    with pytest.raises(RuntimeError, match="expected the rewards of"):
        reward_hacks_side.main(str(tmp_path / "gains"), str(tmp_path))
