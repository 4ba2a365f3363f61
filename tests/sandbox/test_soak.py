"""A soak in small by default, in large when asked: nothing leaks, nothing is swapped or lost."""

import pytest

from .soak import Plan, Soak


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(Plan(turns=2_000, sessions=40, turns_a_zygote=400), id="small"),
        pytest.param(
            Plan(turns=1_000, sessions=40, turns_a_zygote=250, isolation="confined"), id="confined"
        ),
        pytest.param(Plan(), marks=[pytest.mark.slow, pytest.mark.timeout(1_800)], id="whole"),
    ],
)
def test_a_soak_with_random_deaths_finds_nothing(plan):
    findings = Soak(plan).run()
    assert (findings.wrong, findings.unreported, findings.leaks) == ([], [], [])
    assert findings.turns == plan.turns
    assert findings.zygote_deaths > 0
    assert findings.kills > 0
