"""Prompts, digests and weights do not depend on the location of the package."""

import anywhere
import pytest


@pytest.mark.slow
def test_a_wheel_gives_the_golden_digests_in_every_place():
    assert anywhere.main() == 0
