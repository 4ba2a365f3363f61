"""kill -9 and Ctrl-C as for users: through the commands, with embedded Prefect."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from ..kills import (
    STEPS,
    Folder,
    flow_run_of,
    is_gone,
    killed_at_end,
    prefect,
    served,
    wait_until,
    worker_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
SAVE_EVERY = 2
LONG = 4000
"""Number of steps of a training that should not end by itself."""


@pytest.fixture
def folder(tmp_path):
    return prepared(tmp_path / "a folder", STEPS)


@pytest.fixture
def long(tmp_path):
    return prepared(tmp_path / "a folder", LONG)


def prepared(root, steps):
    made = Folder(root, steps)
    made.run("curate", "--preset", "smoke", "--seed", "0", "--no-prefect", log="curate.log")
    return made


def assert_complete(folder):
    """Check that no step is lost, and only steps since the last save were repeated."""
    steps = folder.steps_done()
    assert sorted(set(steps)) == list(range(1, STEPS + 1))
    assert len(steps) <= STEPS + SAVE_EVERY
    assert len(folder.trainings()) == 1


def test_a_killed_training_resumes_immediately_and_blocks_no_other(folder):
    process = folder.start("sft", log="first.log")
    with killed_at_end(process):
        folder.wait_for_step(process, 5, log="first.log")
        family = folder.family(process)
        assert len(family) >= 2  # with Prefect's own server
        process.kill()
        process.wait()
    assert not psutil.wait_procs(family, timeout=120)[1]

    said = folder.run("sft", log="again.log")
    assert "sft: resuming sft-" in said
    assert "waiting for its turn" not in said
    assert_complete(folder)

    said = folder.run("sft", "--refresh", log="other.log")
    assert "waiting for its turn" not in said
    assert "running" not in folder.statuses()


def test_a_killed_command_leaves_none_of_its_processes(long):
    process = long.start("sft", "--processes", "2", log="several.log")
    with killed_at_end(process):
        long.wait_for_step(process, 1, log="several.log")
        family = long.family(process)
        process.kill()
        process.wait()
    assert not psutil.wait_procs(family, timeout=120)[1]


def test_trainings_take_turns_until_the_running_one_is_killed(long):
    first = long.start("sft", log="first.log")
    with killed_at_end(first):
        long.wait_for_step(first, 1, log="first.log")
        impatient = long.start("sft", "--refresh", log="impatient.log")
        with killed_at_end(impatient):
            wait_until(lambda: "waiting for its turn" in long.said("impatient.log"))
            os.killpg(impatient.pid, signal.SIGINT)
            assert impatient.wait(120) == 130
        said = long.said("impatient.log")
        assert f"(running: process {first.pid})" in said
        assert "resumes it" in said
        assert "Traceback" not in said
        assert "rror" not in said
        assert len(long.trainings()) == 1

        patient = long.start("sft", "--refresh", log="patient.log")
        with killed_at_end(patient):
            wait_until(lambda: "waiting for its turn" in long.said("patient.log"))
            first.kill()
            long.wait_for_step(patient, 1, run=1, log="patient.log")


def run_deployment(folder, name):
    prefect(folder, "deployment", "run", name)


def states(folder):
    return folder.statuses("flow_run", "state_name", "prefect/prefect.db")


def test_a_training_outlives_its_worker_and_is_started_once(folder):
    with served(folder) as server:
        run_deployment(folder, "sft/tiny")
        folder.wait_for_step(server, 3)
        training, worker = flow_run_of(folder), worker_of(server)
        worker.kill()
        wait_until(lambda: worker_of(server) not in (None, worker))
        wait_until(lambda: states(folder) == ["Completed"], lambda: str(states(folder)))
        wait_until(lambda: is_gone(training))
        assert_complete(folder)
        assert "is being restarted" in folder.said("serve.log")
        assert "died with their worker" not in folder.said("serve.log")
    assert len(folder.steps_done()) == STEPS  # no step was repeated


def test_a_training_killed_under_a_worker_blocks_no_other(long):
    with served(long) as server:
        run_deployment(long, "sft/tiny")
        long.wait_for_step(server, 3)
        flow_run_of(long).kill()
        wait_until(lambda: states(long) == ["Crashed"], lambda: str(states(long)))
        done = len(long.steps_done())
        run_deployment(long, "sft/tiny")
        long.wait_for_step(server, done + 3)
        assert len(long.trainings()) == 1
        assert "waiting for its turn" not in long.said(".codedance/logs/flow-runs.log")
        training, worker = flow_run_of(long), worker_of(server)
        worker.kill()
        wait_until(lambda: worker_of(server) not in (None, worker))
    assert is_gone(training)  # Ctrl-C stops it although its worker has ended
    assert sorted(states(long)) == ["Cancelled", "Crashed"]


def test_worker_and_training_killed_together_are_marked_before_the_next_worker(long):
    with served(long) as server:
        run_deployment(long, "sft/tiny")
        long.wait_for_step(server, 3)
        training, worker = flow_run_of(long), worker_of(server)
        worker.suspend()  # it must not notice the end of its run
        training.kill()
        worker.kill()
        wait_until(lambda: states(long) == ["Crashed"], lambda: str(states(long)))
        done = len(long.steps_done())
        run_deployment(long, "sft/tiny")  # its limit of one concurrent run must be free again
        long.wait_for_step(server, done + 3)


def test_a_killed_flows_serve_leaves_no_server_and_its_training_continues(folder):
    with served(folder) as server:
        run_deployment(folder, "sft/tiny")
        folder.wait_for_step(server, 3)
        port = server.args[-1]
        training = flow_run_of(folder)
        others = folder.family(server) - {training}
        server.kill()
        server.wait()
    assert not psutil.wait_procs(others - set(psutil.Process().children()), timeout=120)[1]
    with served(folder, port=port):
        wait_until(lambda: states(folder) == ["Completed"], lambda: str(states(folder)))
        assert_complete(folder)
