"""What 100 tasks give under the tested versions; `five_environments` holds others against it."""

import pytest
from played_tasks import TASKS, digests, whole

FEW = 8
DIGESTS = {
    FEW: "4661f6f03c68e8e33819298617697246cda30e1ee24f43f726d3d37db0f106c7",
    TASKS: "ff5e1d3e797192fe2d2a720a378a0cd76e970152a4ce2e322042bb7d5d4b4a3b",
}


@pytest.mark.parametrize("tasks", [FEW, pytest.param(TASKS, marks=pytest.mark.slow)])
def test_tasks_sandbox_and_rewards_are_what_they_were(tasks):
    found, right = digests(tasks)
    assert len(found) == tasks
    assert right > tasks  # of two episodes each
    assert whole(found) == DIGESTS[tasks]
