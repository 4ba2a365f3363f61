"""A sample of many similar cases for the default run; the slow suite runs all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def sampled(cases: Iterable[Any], every: int = 3) -> list[Any]:
    """Return the cases, slow but for each ``every``-th; those in `pytest.param` stay as given."""
    found: list[Any] = []
    for number, case in enumerate(cases):
        is_whole = number % every == 0 or hasattr(case, "marks")
        values = case if isinstance(case, tuple) else (case,)
        found.append(case if is_whole else pytest.param(*values, marks=pytest.mark.slow))
    return found
