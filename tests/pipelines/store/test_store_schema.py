"""Migrations from the first schema to the newest, on SQLite and PostgreSQL, lose no data."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from codedance.pipelines.store.connection.address import read_address
from codedance.pipelines.store.connection.database import _set_journal, open_database
from codedance.pipelines.store.connection.errors import StoreError
from codedance.pipelines.store.connection.migrating import HEAD, MIGRATIONS, schema_version, upgrade
from codedance.pipelines.store.lineage import StageRequest
from codedance.pipelines.store.maintenance.verify import verify
from codedance.pipelines.store.rows import task_key
from codedance.pipelines.store.schema import Base
from codedance.pipelines.store.store import open_store
from sqlalchemy import create_engine, text

from ..makers import make_request, make_task, make_trajectory

FIRST = "0001"
RUN = "curate-20261101-120000-abcd"
ROWS = {
    "lineage": {
        "id": RUN,
        "stage": "curate",
        "key": "k",
        "preset": "smoke",
        "status": "finished",
        "inputs": "{}",
        "outputs": json.dumps({"tasks": 1}),
        "parameters": "{}",
        "seed": 2**62,
        "code_version": "code",
        "started_at": "2026-11-01 12:00:00.000000",
    },
    "tasks": {
        "key": "t",
        "task_id": "toy/1",
        "suite": "toy",
        "family": "count",
        "split": "train",
        "question": "How many?",
        "images": "[]",
        "answer": "3",
        "answer_kind": "integer",
        "tolerance": 0.0,
        "choices": "[]",
        "difficulty": "easy",
        "needs_picture": True,
        "provenance": "{}",
    },
    "trajectories": {
        "id": 1,
        "stage_run": RUN,
        "phase": "weak",
        "step": 0,
        "sample": 0,
        "task_key": "t",
        "policy_id": "toy",
        "seed": 1,
        "opening": "[]",
        "ending": "answered",
        "accuracy": 1.0,
        "answer": "3",
        "tool_calls": 0,
        "tool_successes": 0,
    },
    "turns": {
        "trajectory": 1,
        "number": 0,
        "text": "<answer>3</answer>",
        "action": "answer",
        "content": "3",
    },
    "scores": {"trajectory": 1, "scoring": "original", "term": "accuracy", "value": 1.0},
}
"""Data stored by a CodeDance of the first schema, as plain SQL."""


KEY_OF_RUN = StageRequest("curate", "smoke", {}, {}, 2**62, "code").key
PLAIN = {"images": [], "choices": [], "needs_picture": True}
MOVED = (
    "INSERT INTO tasks (key, task_id, suite, family, split, question, images, answer, answer_kind, "
    "tolerance, choices, difficulty, needs_picture, provenance) SELECT :tasks, task_id, suite, "
    "family, split, question, images, answer, answer_kind, tolerance, choices, difficulty, "
    "needs_picture, provenance FROM tasks",
    "UPDATE trajectories SET task_key = :tasks",
    "DELETE FROM tasks WHERE key = 't'",
)
"""Statements that set the keys of a real store: those of the made-up rows match nothing."""


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path):
    """Address of an empty database, without a store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return request.getfixturevalue("postgres").make_database(f"bare_{tmp_path.name}")


def open_first(address):
    """Return an engine on a store of the first schema with one trajectory."""
    engine = create_engine(read_address(address))
    upgrade(engine, FIRST)
    with engine.begin() as connection:
        for table, row in ROWS.items():
            names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)
    return engine


def test_migrations_produce_the_schema_that_the_code_expects(address):
    database = open_database(address)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    database.close()


def test_newest_migration_matches_the_version_in_the_code():
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD


def test_store_of_the_first_schema_is_migrated_with_all_its_data(address, home, monkeypatch):
    engine = open_first(address)
    assert schema_version(engine) == FIRST
    engine.dispose()
    monkeypatch.setenv("CODEDANCE_STORE_URL", address)
    with open_store(home) as store:
        with store.database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert store.lineage.get(RUN).outputs == {"tasks": 1}
        (episode,) = store.episodes(RUN)
        (trajectory,) = store.trajectories([episode.id])
        assert [turn.text for turn in trajectory.turns] == ["<answer>3</answer>"]
        assert trajectory.reward_terms == {"accuracy": 1.0}
        task = make_task()
        run = store.lineage.begin(make_request())
        store.add_trajectories([task], [make_trajectory(task)], stage_run=run.id, phase="weak")
        assert [e.id for e in store.episodes(run.id)] != [episode.id]


def test_data_of_an_older_store_is_unknown_and_not_changed(address, home, monkeypatch):
    open_first(address).dispose()
    monkeypatch.setenv("CODEDANCE_STORE_URL", address)
    with open_store(home) as store:
        with store.database.engine.begin() as connection:
            keys = {"lineage": KEY_OF_RUN, "tasks": task_key({**ROWS["tasks"], **PLAIN})}
            connection.execute(text("UPDATE lineage SET key = :lineage"), keys)
            for statement in MOVED:
                connection.execute(text(statement), keys)
        verdict = verify(store)
        assert verdict.findings == []
        assert verdict.unsealed == 1
        assert verdict.unknown == {"runs": 1, "stages": 1, "tasks": 1, "verdicts": 1}
        store.lineage.mark(RUN, "finished", outputs={"tasks": 1})
        sealed = verify(store).unknown  # the row of its run is sealed from now on
        assert sealed == {"stages": 1, "tasks": 1, "verdicts": 1}


def test_migrations_can_be_reverted_and_repeated(address):
    from alembic import command
    from alembic.config import Config

    engine = open_first(address)
    upgrade(engine)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes.update(connection=connection, metadata=Base.metadata)
        command.downgrade(config, FIRST)
    assert schema_version(engine) == FIRST
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert connection.execute(text("SELECT count(*) FROM turns")).scalar() == 1
    engine.dispose()


def test_store_of_a_newer_version_is_rejected(address):
    database = open_database(address)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(StoreError, match=r"is at schema 9999.*install a newer one"):
        open_database(address)


def test_a_new_store_can_be_opened_by_many_threads_at_once(address):
    found, errors = [], []

    def open_it():
        try:
            database = open_database(address)
            found.append(schema_version(database.engine))
            database.close()
        except Exception as error:  # noqa: BLE001 - any error is reported by the test
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, errors) == ([HEAD] * 4, [])


def test_journal_is_switched_after_a_concurrent_switch(tmp_path):
    """SQLite fails immediately for any timeout if two connections change the journal."""
    path = tmp_path / "store.db"
    first = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    first.execute("CREATE TABLE words (word TEXT)")
    first.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.3, lambda: first.execute("COMMIT"))
    second = sqlite3.connect(path, timeout=0.0)
    release.start()
    try:
        _set_journal(second.cursor(), "WAL")
        assert second.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        release.join()
        second.close()
        first.close()


KILLED_IN_MIGRATION = """
import os, signal, sys
from sqlalchemy import create_engine, event
from codedance.pipelines.store.connection.address import read_address
from codedance.pipelines.store.connection.migrating import upgrade

engine = create_engine(read_address(sys.argv[1]))

@event.listens_for(engine, "after_cursor_execute")
def die(connection, cursor, statement, *_):
    if "CREATE TABLE trajectories" in statement:
        os.kill(os.getpid(), signal.SIGKILL)

upgrade(engine)
"""


def test_a_migration_killed_halfway_leaves_nothing_behind(address):
    done = subprocess.run(
        [sys.executable, "-c", KILLED_IN_MIGRATION, address], check=False, env=os.environ
    )
    assert done.returncode == -signal.SIGKILL
    database = open_database(address)
    assert schema_version(database.engine) == HEAD
    database.close()
