"""Nodes of the experiment are claimed: machines that share a store do none twice."""

from __future__ import annotations

import threading
import time

import pytest
from codedance.pipelines.config.home import Home
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.store.claims import try_claim
from codedance.pipelines.store.lineage import StageRequest
from codedance.pipelines.store.schema import ClaimRow
from codedance.pipelines.store.store import open_store
from sqlalchemy import update

from experiments.paper.plan import make_plan
from experiments.paper.records import mark, preset_name_of
from experiments.paper.work import Experiment


def recorded(store, setting, seed, node):
    """Record a finished run of a node, as if it had been trained."""
    request = StageRequest(
        node.stage,
        preset_name_of(setting.preset),
        mark(setting.digest, node.name),
        {},
        seed,
        "code",
    )
    run = store.lineage.begin(request)
    time.sleep(0.2)
    store.lineage.mark(run.id, "finished")
    return store.lineage.get(run.id)


@pytest.mark.slow
def test_two_machines_share_the_nodes_and_do_none_twice(tmp_path, tiny_protocol, monkeypatch):
    monkeypatch.setenv("CODEDANCE_STORE_URL", f"sqlite:///{tmp_path / 'shared.db'}")
    barrier, claims_of, did = threading.Barrier(2), [], []

    def work(session, setting, seed, node):
        claims_of.append(session.claim.work)
        did.append(session.home.root.name)
        return recorded(session.store, setting, seed, node)

    def machine(name):
        with open_session(Home(tmp_path / name), track=False) as session:
            nodes = make_plan(tiny_protocol)
            barrier.wait()
            Experiment(session, tiny_protocol, "quick", range(1), nodes).work(after_seed=list)

    monkeypatch.setattr("experiments.paper.work.run_node", work)
    monkeypatch.setattr("experiments.paper.work.WAIT_SECONDS", 0.1)
    threads = [threading.Thread(target=machine, args=[name]) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claims_of) == len(set(claims_of)) == len(make_plan(tiny_protocol))
    assert set(did) == {"one", "two"}


def test_a_node_that_was_taken_over_is_left_to_the_other(home, tiny_protocol, monkeypatch):
    def work(session, setting, seed, node):
        with open_store(home) as other:
            expired = update(ClaimRow).values(expires_at=1.0)
            other.database.run(lambda transaction: transaction.execute(expired))
            claim = try_claim(other.database, session.claim.work)
            recorded(other, setting, seed, node)
            claim.release()
        raise FileNotFoundError("the other has renamed it")

    monkeypatch.setattr("experiments.paper.work.run_node", work)
    monkeypatch.setattr("experiments.paper.work.WAIT_SECONDS", 0.1)
    with open_session(home, track=False) as session:
        nodes = make_plan(tiny_protocol)[:1]
        Experiment(session, tiny_protocol, "quick", range(2), nodes).work(after_seed=list)
        assert len(session.store.lineage.find(status="finished")) == 2
        assert session.claim is None
