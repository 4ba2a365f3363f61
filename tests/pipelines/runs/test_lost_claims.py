"""A process that lost its claim writes no image, and blocks nobody, wherever it was stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from codedance.pipelines.config.home import Home
from codedance.pipelines.store import claims
from codedance.pipelines.store.claims import ClaimLostError, held, try_claim
from codedance.pipelines.store.connection.database import IDLE_SECONDS, open_database
from codedance.pipelines.store.maintenance.pruning import prune
from codedance.pipelines.store.maintenance.verify import verify
from codedance.pipelines.store.store import open_store

from ..makers import make_request, make_task, make_trajectory
from .test_work_claims import WORK, taken_over, wait_for


@pytest.fixture
def other(home, store):
    """The database as used by another machine."""
    opened = open_database(home.store_url)
    yield opened
    opened.close()


def test_a_former_holder_writes_no_image(home, store, other, monkeypatch):
    run = store.lineage.begin(make_request())
    with held(store.database, try_claim(store.database, WORK)):
        add_one(store, run, 1)
        with monkeypatch.context() as late:
            late.setattr(claims, "_clock", lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + 31)
            add_one(store, run, 2)  # the lease is renewed
            taken_over(other)
            late.setattr(claims, "_clock", lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + 62)
            before = set(home.images.rglob("*.png"))
            with pytest.raises(ClaimLostError):
                add_one(store, run, 3)
            assert set(home.images.rglob("*.png")) == before
    assert len(store.episodes(run.id)) == 2


def test_an_image_written_just_before_the_claim_was_lost_is_pruned(home, other):
    with open_store(home) as store:
        run = store.lineage.begin(make_request())
        with held(store.database, try_claim(store.database, WORK)):
            add_one(store, run, 1)
            kept = set(home.images.rglob("*.png"))
            taken_over(other)
            with pytest.raises(ClaimLostError):  # its lease was thought to last
                add_one(store, run, 2)
    assert len(set(home.images.rglob("*.png")) - kept) == 1
    with open_store(home) as store:
        assert prune(store, [], is_dry=False).pictures == 1
        assert verify(store).is_whole
    assert set(home.images.rglob("*.png")) == kept


def add_one(store, run, number):
    """Store a trajectory with an image of its own."""
    task = make_task(number)
    store.add_trajectories([task], [make_trajectory(task)], stage_run=run.id, phase="weak")


FREEZES = """
import os, signal, sys
from sqlalchemy import update
from codedance.pipelines.store.claims import ClaimLostError, held, try_claim
from codedance.pipelines.store.connection import database as module
from codedance.pipelines.store.schema import LineageRow
module.IDLE_SECONDS = 1
database = module.open_database(sys.argv[1])

def work(session):
    session.execute(update(LineageRow).values(error="of the loser"))
    if not stopped:
        stopped.append(True)
        os.kill(os.getpid(), signal.SIGSTOP)
    session.execute(update(LineageRow).values(status="failed"))

stopped = []
try:
    with held(database, try_claim(database, sys.argv[2])):
        database.run(work)
except ClaimLostError as error:
    print(f"lost: {error}")
"""


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "T"


def test_a_holder_that_froze_within_a_transaction_does_not_block_its_successor(
    postgres_url, monkeypatch, tmp_path
):
    monkeypatch.setenv("CODEDANCE_STORE_URL", postgres_url)
    with open_store(Home(tmp_path / "home")) as store:
        run = store.lineage.begin(make_request())
        frozen = subprocess.Popen(
            [sys.executable, "-c", FREEZES, postgres_url, WORK], stdout=subprocess.PIPE, text=True
        )
        rescue = threading.Timer(60, frozen.send_signal, [signal.SIGCONT])  # or this never ends
        rescue.start()
        try:
            wait_for(lambda: is_stopped(frozen.pid), frozen)
            claim = taken_over(store.database)
            with held(store.database, claim):
                store.lineage.mark(run.id, "finished")
            assert is_stopped(frozen.pid)
            frozen.send_signal(signal.SIGCONT)
            said, _ = frozen.communicate(timeout=60)
        finally:
            rescue.cancel()
            frozen.kill()
            frozen.wait()
        assert "another process has taken it over" in said
        after = store.lineage.get(run.id)
        assert (after.status, after.error) == ("finished", None)


def test_a_transaction_is_ended_no_later_than_the_lease():
    assert IDLE_SECONDS <= claims.LEASE_SECONDS
