"""A command killed at its very end leaves no flow run open once the same command is given again."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import asdict, replace

import pytest
from codedance.pipelines.cli.training import stages
from codedance.pipelines.serving.command_marks import command_mark, dead_marks
from codedance.pipelines.store.claims import Holder

from ..makers import make_request


def left(home):
    return sorted(path.name for path in (home.root / "commands").glob("*"))


def test_a_mark_is_removed_at_the_end_and_stays_after_an_error(home):
    me = Holder.of_this_process()
    name = f"{me.pid}-{me.begun}.json"
    with command_mark(home):
        assert left(home) == [name]
        assert dead_marks(home) == []  # this process lives
    assert left(home) == []
    with suppress(OSError), command_mark(home):
        raise OSError("the server has gone")
    assert left(home) == [name]


def test_dead_are_the_marks_of_processes_that_ended_on_this_host(home):
    me = Holder.of_this_process()
    folder = home.root / "commands"
    assert dead_marks(home) == []
    folder.mkdir()
    holders = {"dead": replace(me, begun=me.begun - 1), "far": replace(me, host="other", pid=1)}
    for name, holder in holders.items():
        (folder / f"{name}.json").write_text(json.dumps(asdict(holder)))
    (folder / "cut.json").write_text('{"host": "th')
    assert sorted(path.stem for path in dead_marks(home)) == ["cut", "dead"]


CLOSING = """
import asyncio, json
from dataclasses import asdict, replace
from codedance.pipelines.cli.training import stages
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.store.claims import Holder

async def begin():
    from prefect import get_client
    from prefect.states import Running
    from codedance.pipelines.flows import FLOWS
    from codedance.pipelines.flows.watching import COMMAND_TAG
    tag = f"{COMMAND_TAG}{dead.host}|{dead.pid}|{dead.begun}"
    async with get_client() as client:
        await client.create_flow_run(FLOWS["sft"], tags=["codedance", tag], state=Running())

me = Holder.of_this_process()
dead = replace(me, begun=me.begun - 1)
with open_session(track=False) as session:
    with stages._through_prefect(session, RUN, is_wanted=True) as is_there:
        assert is_there
        asyncio.run(begin())
    folder = session.home.root / "commands"
    folder.mkdir()
    (folder / "dead.json").write_text(json.dumps(asdict(dead)))
    stages._close_killed(session, RUN)
    stages._close_killed(session, RUN)
"""


@pytest.mark.slow
def test_flow_runs_of_a_killed_command_are_closed_and_prefect_is_started_once_for_it(home):
    program = f"from types import SimpleNamespace\nRUN = SimpleNamespace(id='smoke-1')\n{CLOSING}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("starting Prefect") == 2  # once to begin the run, once to close it
    assert left(home) == []
    with closing(sqlite3.connect(home.root / "prefect" / "prefect.db")) as prefect:
        assert prefect.execute("SELECT state_name FROM flow_run").fetchall() == [("Crashed",)]


@pytest.mark.slow
@pytest.mark.parametrize("way", [(), ("--no-prefect",)])
def test_a_finished_run_looks_for_killed_commands(codedance, store, monkeypatch, way):
    run = store.lineage.begin(make_request("pipeline"))
    store.lineage.mark(run.id, "finished")
    closed = []
    monkeypatch.setattr(stages, "open_pipeline", lambda *_: store.lineage.get(run.id))
    monkeypatch.setattr(stages, "_close_killed", lambda _, pipeline: closed.append(pipeline.id))
    monkeypatch.setattr(stages, "_report", lambda *_: None)
    monkeypatch.setattr(stages, "print_report", lambda *_: None)
    monkeypatch.setattr(stages, "report_document", lambda *_: {})
    assert codedance("run", *way)[0] == 0
    assert closed == ([] if way else [run.id])
