"""Every attempt is held in the local backend; ``make test-escapes`` makes them in every place.

That target also makes each attempt's control, which shows that it would succeed elsewhere. The
default run makes a third of the attempts, at level ``full``; the rest is slow. CI makes them at
level ``confined`` by ``make test-escapes ABI=2 LEVEL=confined AS=root``.
"""

import sys
from contextlib import ExitStack

import pytest
from codedance.sandbox import SandboxError
from sampling import sampled

from ..conftest import skip_if_lacking
from .catalogue import ATTEMPTS
from .places import open_arena

_BY_NUMBER = {attempt.number: attempt for attempt in ATTEMPTS}


@pytest.fixture(scope="module")
def arena():
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open_arena("full"))
        except SandboxError as error:
            skip_if_lacking("full", error)
            raise
        yield opened


def not_held(verdicts):
    """Return descriptions of the attempts that were not held."""
    return [f"{v.number}: {v.result}: {v.detail}" for v in verdicts if v.result != "held"]


@pytest.mark.parametrize("number", sampled(_BY_NUMBER))
def test_an_attempt_is_held_and_harms_nothing(arena, number):
    assert not_held([arena.judge(_BY_NUMBER[number])]) == []


def test_the_list_is_complete():
    """79 of the list and at least 20 of ours, each with a control or a reason for none."""
    numbers = {int("".join(filter(str.isdigit, number))) for number in _BY_NUMBER}
    assert numbers >= set(range(1, 100))
    assert len(_BY_NUMBER) == len(ATTEMPTS)
    for attempt in ATTEMPTS:
        assert attempt.held_by
        assert bool(attempt.without) != bool(attempt.why_no_control), attempt.number
        for block in attempt.blocks:
            if not block.startswith("WAIT "):
                compile(block, f"attempt {attempt.number}", "exec")


def test_isolation_is_never_removed_outside_a_container():
    from .without import judge_without as take_away

    assert sys.platform == "linux"
    with pytest.raises(RuntimeError, match="only removed in a container"):
        take_away(frozenset({"filter"}), ATTEMPTS[:1])
