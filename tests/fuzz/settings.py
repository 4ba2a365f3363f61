"""Number of examples per fuzz test, and whether they are the same each time.

CI tries a third of them, the same every time. ``CODEDANCE_FUZZ=N`` tries N times as many, different
in every run, as ``make fuzz`` does.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("CODEDANCE_FUZZ", "0"))


def examples(count: int) -> settings:
    """Return the settings of a test with ``count`` examples and without a deadline."""
    return settings(
        max_examples=count * TIMES or count // 3,
        derandomize=TIMES == 0,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
