"""A soak test, small by default and large on request: nothing leaks, is swapped or is lost."""

import pytest

from .soak import Plan, Soak


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(Plan(turns=2_000, sessions=40, turns_per_zygote=400), id="small"),
        pytest.param(
            Plan(turns=1_000, sessions=40, turns_per_zygote=250, isolation="confined"),
            id="confined",
        ),
        pytest.param(Plan(), marks=[pytest.mark.slow, pytest.mark.timeout(1_800)], id="whole"),
    ],
)
def test_a_soak_test_with_random_kills_finds_nothing(plan):
    findings = Soak(plan).run()
    assert (findings.wrong, findings.unreported, findings.leaks) == ([], [], [])
    assert findings.turns == plan.turns
    assert findings.zygote_deaths > 0
    assert findings.kills > 0
