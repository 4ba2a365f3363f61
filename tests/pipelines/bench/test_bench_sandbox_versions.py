"""Costs of two versions of the sandbox: ratios by hand, what counts as dearer, no mix-up."""

import json

import pytest

from benchmarks.measuring import fair_shares_side, sandbox_side
from benchmarks.measuring.sandbox_sides import Cost, cost_table, costs


def seconds(full, bare=0.5):
    rows = ("start", "print", "crop")
    return {"bare exec": dict.fromkeys(rows, bare), "full": dict.fromkeys(rows, full)}


def cost(ratio, low):
    return Cost("full", "print", 1.0, ratio, ratio, low, 9.0, 1.0)


def test_ratios_are_those_of_the_pairs():
    pairs = [(seconds(1.0), seconds(1.1)), (seconds(2.0), seconds(2.4)), (seconds(4.0), seconds(6))]
    found = {(each.contestant, each.row): each for each in costs(pairs, seed=0)}
    full = found["full", "crop"]
    assert full.ratio == pytest.approx(1.2)
    assert (full.before, full.after) == (2.0, 2.4)
    assert (full.low, full.high) == pytest.approx((1.1, 1.5))
    assert full.over_bare == pytest.approx(4.8)
    assert found["bare exec", "crop"].ratio == 1.0
    assert len(found) == 6


def test_a_level_that_one_version_lacks_is_left_out():
    old = seconds(1.0)
    new = {**seconds(1.0), "confined": dict.fromkeys(old["full"], 1.0)}
    assert {each.contestant for each in costs([(old, new)], seed=0)} == {"bare exec", "full"}


@pytest.mark.parametrize(
    ("ratio", "low", "is_kept"), [(1.2, 0.99, True), (1.02, 1.01, True), (1.03, 1.01, False)]
)
def test_a_cost_is_kept_if_its_interval_reaches_one_or_it_is_small(ratio, low, is_kept):
    assert cost(ratio, low).is_kept is is_kept
    assert cost_table([cost(ratio, low)]).rows[0][-1] == ("kept" if is_kept else "dearer")


@pytest.mark.parametrize("side", [sandbox_side, fair_shares_side])
def test_a_process_that_imports_another_version_fails(tmp_path, side):
    with pytest.raises(RuntimeError, match="expected the sandbox of"):
        side.main("1", "0", str(tmp_path / "seconds"), str(tmp_path))


def test_a_neighbour_is_measured_until_the_others_have_ended():
    found = fair_shares_side.measure(1, 0.5)
    assert found["turns"] >= 1
    assert 0 < found["median"] <= found["longest"]
    assert found["own"] == 1


@pytest.mark.slow
def test_a_side_is_measured_in_every_row(tmp_path):
    file = tmp_path / "seconds.json"
    root = sandbox_side.Path(sandbox_side.codedance.sandbox.__file__).resolve().parents[1]
    sandbox_side.main("1", "0", str(file), str(root))
    measured = json.loads(file.read_text())
    assert set(measured) >= {"bare exec"}
    assert all(value > 0 for rows in measured.values() for value in rows.values())
