"""The server becomes unavailable and returns: work waits; nothing is lost or stored twice."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from codedance.pipelines.config.home import Home
from codedance.pipelines.store.connection.errors import StoreAwayError
from codedance.pipelines.store.connection.patience import Patience
from codedance.pipelines.store.maintenance.verify import verify
from codedance.pipelines.store.store import open_store

from benchmarks.measuring.postgres import PostgresServer

from ..makers import make_request, make_task, make_trajectory
from ..tiny_runs import story

COMMAND = [
    sys.executable,
    "-c",
    "from codedance.pipelines.cli import main; main()",
    *("run", "--preset", "smoke", "--no-prefect"),
]


@pytest.fixture
def server(postgres_programs, monkeypatch, tmp_path):
    """A separate server that the test may stop, with an empty database in the environment."""
    with PostgresServer({"fsync": "off"}) as own:  # committed data survives its kill
        monkeypatch.setenv("CODEDANCE_STORE_URL", own.make_database("store"))
        monkeypatch.setenv("CODEDANCE_DIR", str(tmp_path / "home"))
        yield own


@pytest.fixture
def away_home(server, tmp_path):
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


def add(store, run, tasks, step):
    trajectories = [make_trajectory(task) for task in tasks for _ in range(2)]
    return store.add_trajectories(tasks, trajectories, stage_run=run.id, phase="train", step=step)


@pytest.mark.slow
def test_writer_waits_for_an_unavailable_server_and_stores_all_once(away_home, server):
    messages, tasks = [], [make_task(n) for n in range(3)]
    with open_store(away_home, Patience(60.0, messages.append)) as store:
        run = store.lineage.begin(make_request())
        add(store, run, tasks, step=1)
        server.stop("immediate")
        back = threading.Timer(0.7, server.start)
        back.start()
        for step in (2, 3):
            add(store, run, tasks, step=step)
        back.join()
        assert sorted((e.step, e.sample) for e in store.episodes(run.id)) == sorted(
            (step, sample) for step in (1, 2, 3) for sample in (0, 1) for _ in tasks
        )
        assert verify(store).is_whole
    waiting, answered = messages
    assert "waiting for it, up to 60 s; no data is lost" in waiting
    assert answered.startswith("the store answers again, after ")


def test_the_wait_is_bounded_and_not_repeated(away_home, server):
    messages = []
    with open_store(away_home, Patience(3.0, messages.append)) as store:
        run = store.lineage.begin(make_request())
        server.stop()
        begun = time.monotonic()
        with pytest.raises(StoreAwayError, match="Nothing answers there"):
            store.episodes(run.id)
        first = time.monotonic() - begun
        with pytest.raises(StoreAwayError):
            store.lineage.mark(run.id, "failed")
        second = time.monotonic() - begun - first
        assert second < first / 2
        server.start()
        assert store.lineage.get(run.id).status == "running"
        assert len(messages) == 1


def test_a_stop_request_ends_the_wait(away_home, server):
    stop = threading.Event()
    with open_store(away_home, Patience(600.0, lambda _: None, stop.is_set)) as store:
        run = store.lineage.begin(make_request())
        server.stop()
        threading.Timer(0.3, stop.set).start()
        begun = time.monotonic()
        with pytest.raises(StoreAwayError):
            store.episodes(run.id)
        assert time.monotonic() - begun < 30.0


def wait_for_steps(home, process):
    """Poll from outside until a step of GRPO is stored."""
    with open_store(home) as store:
        while process.poll() is None:
            if any(store.episodes(run.id) for run in store.lineage.find(stage="grpo")):
                return
            time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_training_continues_when_the_server_is_back_with_each_trajectory_once(
    away_home, server, tiny, finished_home
):
    process = subprocess.Popen(
        COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for_steps(away_home, process)
    server.stop("immediate")
    assert process.poll() is None, "the run ended before the server could be stopped"
    time.sleep(8.0)
    server.start()
    _, error = process.communicate(timeout=1500)
    assert process.returncode == 0, error
    assert "no data is lost meanwhile" in error
    assert "the store answers again" in error
    with open_store(finished_home) as unharmed, open_store(away_home) as store:
        for stage in ("curate", "grpo", "evaluate"):
            (run,) = store.lineage.find(stage=stage)
            (other,) = unharmed.lineage.find(stage=stage)[-1:]
            assert run.status == "finished"
            assert story(store, run.id) == story(unharmed, other.id)
        assert verify(store).is_whole
