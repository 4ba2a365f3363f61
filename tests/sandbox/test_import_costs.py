"""Measured cost of libraries, including missing ones."""

import sys
from dataclasses import replace

import pytest
from codedance.sandbox import SandboxError
from codedance.sandbox.docker.image.build import IMAGE_LIBRARIES
from codedance.sandbox.host.import_costs import measure_libraries

from .conftest import SMALL, open_container, open_isolated


def test_each_library_has_the_time_of_its_import_and_of_a_fork():
    numpy, nothing, again = measure_libraries(
        ("numpy", "no_such_library", "numpy"), python=sys.executable
    )
    assert numpy.import_ms > 10
    assert numpy.fork_ms is not None
    assert (nothing.import_ms, nothing.fork_ms) == (None, None)
    assert nothing.error == "ModuleNotFoundError: No module named 'no_such_library'"
    assert again.import_ms < numpy.import_ms / 10


@pytest.fixture(params=["full", "confined", "docker", "docker_confined"])
def patient(request):
    """Every isolated level, with enough time for a cold disk."""
    limits = replace(SMALL, wall_seconds=200.0)
    isolation = request.param.removeprefix("docker_").replace("docker", "auto")
    if "docker" in request.param:
        opened = open_container(request.getfixturevalue("image"), limits, isolation=isolation)
    else:
        opened = open_isolated(isolation, limits)
    with opened as sandbox:
        yield sandbox


@pytest.mark.slow
def test_every_library_of_the_image_can_be_imported_with_isolation(patient):
    names = ", ".join(IMAGE_LIBRARIES)
    with patient.session() as session:
        execution = session.run(f"import {names}\nprint(scipy.__name__, shapely.__name__)")
    assert execution.stdout == "scipy shapely\n", execution


def test_an_interpreter_that_does_not_run_is_reported():
    with pytest.raises(SandboxError, match="/no/such/python"):
        measure_libraries(("numpy",), python="/no/such/python")
