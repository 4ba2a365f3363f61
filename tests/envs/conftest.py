"""Fixtures of this room: a sandbox without isolation, and a toy task."""

import pytest
from hypothesis import HealthCheck, settings

from .toys import InProcessSandbox, make_task

# Shared machines stall; a slow example is not a failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def sandbox():
    with InProcessSandbox() as opened:
        yield opened


@pytest.fixture
def task():
    return make_task()
