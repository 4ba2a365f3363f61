"""Work is claimed in the database: never done twice, taken over if its holder is dead or slow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest
from codedance.pipelines.config.home import Home
from codedance.pipelines.runs import runner
from codedance.pipelines.runs.context import StageInterrupted, Stop
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.runner import _request_for, at_work, run_stage
from codedance.pipelines.runs.session import RunSession, open_session
from codedance.pipelines.runs.turns import training_turn
from codedance.pipelines.store import claims
from codedance.pipelines.store.claims import (
    Claim,
    ClaimLostError,
    Holder,
    has_workers,
    held,
    try_claim,
    working_for,
)
from codedance.pipelines.store.connection.database import open_database
from codedance.pipelines.store.connection.errors import StoreError
from codedance.pipelines.store.maintenance.pruning import prune
from codedance.pipelines.store.maintenance.verify import verify
from codedance.pipelines.store.schema import ClaimRow
from codedance.pipelines.store.store import open_store
from sqlalchemy import update

from ..makers import make_request
from ..model_fake import model_fake
from ..tiny_runs import TINY, StopAt

WORKS_FOR = ["the same pipeline run", pytest.param("another", marks=pytest.mark.slow)]

WORK = "sft 0123"
ELSEWHERE = Holder("another boot pid:[1]", 7, 1, "another-machine")


@pytest.fixture
def other(home, store):
    """The database as used by another machine."""
    opened = open_database(home.store_url)
    yield opened
    opened.close()


def change(database, **values):
    statement = update(ClaimRow).values(**values)
    database.run(lambda session: session.execute(statement), is_fenced=False)


def taken_over(database, work=WORK):
    """Let another machine take over work, as after an expired lease."""
    change(database, expires_at=1.0)
    found = try_claim(database, work)
    change(database, host=ELSEWHERE.host, pid=ELSEWHERE.pid, begun=ELSEWHERE.begun)
    assert isinstance(found, Claim)
    return found


def test_a_process_whose_start_cannot_be_read_may_live(monkeypatch):
    """As where /proc hides other users' processes, or belongs to another namespace."""
    me = Holder.of_this_process()
    monkeypatch.setattr(claims, "_begun", lambda pid: None)
    assert not me.is_gone()
    assert not replace(me, begun=0).is_gone()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert replace(me, pid=ended.pid).is_gone()


def test_an_error_after_the_work_was_taken_over_is_the_loss_of_it(store, other):
    claim = try_claim(store.database, WORK)
    assert isinstance(claim, Claim)

    def work():
        with held(store.database, claim):
            taken_over(other)
            raise FileNotFoundError("the winner has renamed it")

    with pytest.raises(ClaimLostError) as lost:
        work()
    assert isinstance(lost.value.__cause__, FileNotFoundError)


def test_an_error_of_the_holder_stays_its_own(store):
    claim = try_claim(store.database, WORK)
    assert isinstance(claim, Claim)
    with pytest.raises(FileNotFoundError), held(store.database, claim):
        raise FileNotFoundError("gone")


def test_a_run_that_another_machine_works_on_is_not_pruned(store, other):
    request = make_request(stage="sft")
    run = store.lineage.begin(request)
    store.lineage.mark(run.id, "interrupted")
    claim = taken_over_new(other, claims.claimed_work("sft", request.key))
    with pytest.raises(StoreError, match=f"another-machine works on {run.id}: try again"):
        prune(store, [store.lineage.get(run.id)], is_dry=False)
    claim.release()
    assert prune(store, [store.lineage.get(run.id)], is_dry=False).runs == (run.id,)


def taken_over_new(database, work):
    """Let another machine claim work that nobody has."""
    found = try_claim(database, work)
    assert isinstance(found, Claim)
    change(
        database,
        host=ELSEWHERE.host,
        pid=ELSEWHERE.pid,
        begun=ELSEWHERE.begun,
        name="another-machine",
    )
    return found


def test_a_wait_for_a_turn_ends_when_another_process_has_done_the_work(home):
    request = make_request(stage="sft")

    def finish(message):
        assert "waiting for its turn" in message
        run = here.store.lineage.begin(request)
        here.store.lineage.mark(run.id, "finished")

    turn = training_turn("grpo", fallback=home.root / "locks", say=print, check=lambda: None)
    with open_session(home, track=False) as session, turn:
        progress = SimpleNamespace(say=finish)
        here = RunSession(home, session.store, session.tracker, progress, session.stop)
        with at_work(here, request):
            assert here.claim is None  # nothing is left to do


def test_work_has_one_holder_and_can_be_claimed_after_its_release(store, other):
    first = try_claim(store.database, WORK)
    assert isinstance(first, Claim)
    assert try_claim(other, WORK) == Holder.of_this_process()
    assert isinstance(try_claim(other, "other work"), Claim)
    first.release()
    second = try_claim(other, WORK)
    assert isinstance(second, Claim)
    assert (first.token, second.token) == (1, 2)


def test_a_lease_expires_by_the_databases_clock(store, other, monkeypatch):
    first = try_claim(store.database, WORK)
    change(other, host=ELSEWHERE.host, name=ELSEWHERE.name)
    found = try_claim(other, WORK)
    assert isinstance(found, Holder)
    assert "on another-machine" in str(found)
    monkeypatch.setattr(claims, "LEASE_SECONDS", -1.0)
    assert first.renew()
    monkeypatch.undo()
    assert isinstance(try_claim(other, WORK), Claim)


def test_a_former_holder_writes_nothing_more(store, other, monkeypatch):
    run = store.lineage.begin(make_request())
    claim = try_claim(store.database, WORK)
    with held(store.database, claim):
        store.lineage.mark(run.id, "running", outputs={"a": 1})
        taken_over(other)
        with pytest.raises(ClaimLostError, match="another process has taken it over"):
            store.lineage.mark(run.id, "finished", outputs={"a": 2})
        with pytest.raises(ClaimLostError):
            store.lineage.begin(make_request(seed=1))
        assert store.lineage.get(run.id).outputs == {"a": 1}  # reading is allowed
        assert not claim.renew()
        claim.check()  # the lease known to it has not expired yet
        monkeypatch.setattr(claims, "_clock", lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + 31)
        with pytest.raises(ClaimLostError):
            claim.check()
    assert len(store.lineage.find()) == 1
    store.lineage.mark(run.id, "finished")  # no longer fenced
    assert isinstance(try_claim(store.database, WORK), Holder)  # the new holder keeps it


def test_an_expired_unclaimed_lease_is_renewed(store, monkeypatch):
    claim = try_claim(store.database, WORK)
    change(store.database, expires_at=1.0)
    monkeypatch.setattr(claims, "_clock", lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + 31)
    claim.check()
    assert isinstance(try_claim(store.database, WORK), Holder)


CLAIMS = """
import os, signal, sys
from codedance.pipelines.store.claims import try_claim
from codedance.pipelines.store.connection.database import open_database
print(try_claim(open_database(sys.argv[1]), sys.argv[2]).token, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_work_of_a_dead_process_on_this_host_is_taken_over_immediately(home, store):
    done = subprocess.run(
        [sys.executable, "-c", CLAIMS, home.store_url, WORK],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "1\n")
    claim = try_claim(store.database, WORK)
    assert isinstance(claim, Claim)
    assert claim.token == 2


def test_a_reused_process_id_is_another_process():
    me = Holder.of_this_process()
    assert not me.is_gone()
    assert replace(me, begun=me.begun + 1).is_gone()
    assert not ELSEWHERE.is_gone()  # cannot be determined here


class StolenAt(StopAt):
    """Lets another machine take over the work at a chosen safe point."""

    def __init__(self, count, steal):
        super().__init__(count)
        self._steal = steal

    def request(self):
        self._steal()
        self._steal = lambda: None


@pytest.mark.parametrize("works_for", WORKS_FOR)
def test_a_stage_that_was_taken_over_stops_and_leaves_its_rows_to_the_other(
    home, tiny, other, works_for
):
    with open_session(home, track=False) as session, ExitStack() as stack:
        pipeline = open_pipeline(session, RunRequest("smoke"))
        before = []

        def steal():
            taken_over(other, session.claim.work)
            if works_for == "the same pipeline run":
                stack.enter_context(working_for(other, pipeline.id))
            (run,) = session.store.lineage.find(stage="curate")
            before.extend((run, len(session.store.episodes(run.id))))

        session.stop = StolenAt(90, steal)
        with pytest.raises(ClaimLostError):
            run_stage(session, "curate", pipeline)
        run, episodes = before
        assert session.store.lineage.get(run.id) == run
        assert run.status == "running"
        assert len(session.store.episodes(run.id)) == episodes
        left = "running" if works_for == "the same pipeline run" else "interrupted"
        assert session.store.lineage.get(pipeline.id).status == left


@pytest.mark.parametrize("works_for", WORKS_FOR)
def test_a_command_that_stops_while_waiting_leaves_the_run_to_those_who_work_for_it(
    home, tiny, other, works_for
):
    with open_session(home, track=False) as session, ExitStack() as stack:
        pipeline = open_pipeline(session, RunRequest("smoke"))
        work = claims.claimed_work("curate", _request_for(session, "curate", pipeline).key)
        taken_over_new(other, work)
        if works_for == "the same pipeline run":
            stack.enter_context(working_for(other, pipeline.id))
        session.stop = StopAt(2)
        with pytest.raises(StageInterrupted):
            run_stage(session, "curate", pipeline)
        left = "running" if works_for == "the same pipeline run" else "interrupted"
        assert session.store.lineage.get(pipeline.id).status == left


def test_a_stop_during_a_wait_counts_even_if_the_work_is_finished_then(
    home, tiny, other, monkeypatch
):
    with open_session(home, track=False) as session:
        request = _request_for(session, "curate", open_pipeline(session, RunRequest("smoke")))
        taken_over_new(other, claims.claimed_work("curate", request.key))

        def finish(_):
            session.stop.request()
            run = session.store.lineage.begin(request)
            session.store.lineage.mark(run.id, "finished")

        monkeypatch.setattr(runner, "time", SimpleNamespace(sleep=finish))
        with pytest.raises(StageInterrupted), at_work(session, request):
            pytest.fail("it went on")


def test_a_process_works_for_a_run_until_it_leaves_or_its_lease_ends(store, other):
    def is_busy():
        return other.run(lambda session: has_workers(other, session, "run_1-a"))

    with working_for(store.database, "run_1-a"), working_for(store.database, "run%1-a"):
        assert is_busy()
        with working_for(other, "run_1-a"):
            pass
        assert is_busy()
        change(other, expires_at=1.0)  # as if it were suspended
        assert not is_busy()
        with working_for(other, "run_1-a"):
            assert is_busy()
    assert not is_busy()
    rows = other.run(lambda session: session.query(ClaimRow).count())
    assert rows == 0


def test_waiting_for_a_claim_can_be_stopped(store, other):
    assert isinstance(try_claim(other, WORK), Claim)
    stop = Stop()
    stop.request()
    with (
        pytest.raises(StageInterrupted),
        claims.claimed(store.database, WORK, check=stop.check),
    ):
        pytest.fail("two holders")


CURATE = ("curate", "--preset", "smoke", "--no-prefect")


def start(folder, log, **environment):
    with (folder / log).open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "codedance.pipelines.cli", *CURATE],
            cwd=folder,
            env=os.environ | environment,
            stdout=file,
            stderr=file,
        )


def wait_for(claim, process):
    end = time.monotonic() + 250
    while not claim():
        assert process.poll() is None, "the process ended early"
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(0.02)


@pytest.fixture
def gated():
    """A model server that does not reply before its gate is open."""
    with model_fake() as server:
        server.gate = threading.Event()
        server.refusal = lambda *_: server.gate.wait(250) and None
        try:
            yield server
        finally:
            server.gate.set()


@pytest.fixture
def machines(tmp_path, postgres_url, monkeypatch, gated):
    """Two folders that share a store, images and stages; each has its own training slots."""
    served = f"    server: {{base_url: '{gated.url}', concurrency: 4, timeout_seconds: 250}}\n"
    flows = TINY.replace("{candidates", '{weak: "openai:m", candidates') + served
    monkeypatch.setenv("CODEDANCE_STORE_URL", postgres_url)
    for name in ("images", "stages"):
        monkeypatch.setenv(f"CODEDANCE_{name.upper()}", str(tmp_path / name))
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "flows.yaml").write_text(flows)
        own = {"CODEDANCE_DIR": str(folder / "home"), "CODEDANCE_LOCKS": str(folder / "locks")}
        made.append((folder, own))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True], ids=["both live", "one is killed"])
def test_two_machines_do_one_stage_run_once(machines, gated, tmp_path, is_killed):
    (first, its_own), (second, others_own) = machines
    with open_store(Home(tmp_path / "reader")) as store:
        one = start(first, "log", **its_own)
        wait_for(lambda: gated.asked, one)  # it is working, and cannot finish
        two = start(second, "log", **others_own)
        wait_for(lambda: b"curate: waiting, process" in (second / "log").read_bytes(), two)
        if is_killed:
            one.kill()
        gated.gate.set()
        assert one.wait(250) == (-signal.SIGKILL if is_killed else 0)
        assert two.wait(250) == 0, (second / "log").read_text()
        (run,) = store.lineage.find(stage="curate")
        assert run.is_complete
        said = (second / "log").read_text()
        assert ("resuming" if is_killed else "already finished") in said
        assert len(store.curation(run.id)) == run.outputs["candidates"] == 48
        episodes = [(e.phase, e.task_key, e.sample) for e in store.episodes(run.id)]
        assert len(episodes) == len(set(episodes))
        assert {row.status for row in store.lineage.find()} <= {"finished", "interrupted"}
        assert verify(store).is_whole
