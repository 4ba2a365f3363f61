"""Every example in a docstring runs."""

import doctest
import importlib
import pkgutil

import pytest

ROOMS = ("sandbox", "envs", "policies", "pipelines")
EXECUTED = "codedance.sandbox.worker"  # runs inside the sandbox, under its own import path
NOT_IMPORTED = (".migrations", ".__main__")  # alembic and `python -m` run them


def modules():
    for room in ROOMS:
        package = importlib.import_module(f"codedance.{room}")
        yield package.__name__
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.startswith(EXECUTED) or any(part in found.name for part in NOT_IMPORTED):
                continue
            yield found.name


@pytest.mark.parametrize("name", sorted(modules()))
def test_the_examples_of_a_module_pass(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
