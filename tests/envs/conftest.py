"""Fixtures of this room: an open sandbox without walls, and a toy task."""

import pytest

from .toys import InProcessSandbox, make_task


@pytest.fixture
def sandbox():
    with InProcessSandbox() as opened:
        yield opened


@pytest.fixture
def task():
    return make_task()
