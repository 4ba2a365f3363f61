"""Unreadable rows are listed one by one, and the rest is checked, copied and shown."""

from __future__ import annotations

import json
import re
import sqlite3

import pytest
from codedance.pipelines.cli.exit_codes import FAILED, FINDINGS
from codedance.pipelines.store.connection.errors import StoreError
from codedance.pipelines.store.maintenance.pruning import prune
from codedance.pipelines.store.maintenance.verify import verify
from codedance.pipelines.store.store import open_store

from ..makers import make_request, make_task, make_trajectory


@pytest.fixture
def run(home):
    """A sealed run of two tasks with a trajectory each, numbers 1 and 2."""
    with open_store(home) as store:
        pipeline = store.lineage.begin(make_request("pipeline"))
        run = store.lineage.begin(make_request(), parent=pipeline.id)
        tasks = [make_task(n) for n in range(2)]
        given = [make_trajectory(task) for task in tasks]
        store.add_trajectories(tasks, given, stage_run=run.id, phase="weak")
        store.seal_stage(run.id)
        store.lineage.mark(run.id, "finished", outputs={"tasks": 2})
        store.lineage.mark(pipeline.id, "finished", outputs={"curate": run.id})
    return run


def harm(home, statement):
    """Change the database directly, bypassing SQLAlchemy's checks."""
    connection = sqlite3.connect(home.root / "store.db")
    with connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        assert connection.execute(statement).rowcount == 1
    connection.close()


FIRST = "(SELECT task_key FROM trajectories WHERE id = 1)"
TRAJECTORIES = [
    ("trajectories SET opening = '[' WHERE id = 1", "opening"),
    ('trajectories SET opening = \'[{"role":"user"}]\' WHERE id = 1', "opening"),
    ("trajectories SET opening = '7' WHERE id = 1", "opening"),
    ("trajectories SET accuracy = 'high' WHERE id = 1", "accuracy"),
    ("trajectories SET tokens = 'abc' WHERE id = 1", "tokens"),
    ("trajectories SET step = 'x' WHERE id = 1", "step"),
    ("executions SET images = '[1]' WHERE trajectory = 1", "images"),
    ("executions SET images = 'null' WHERE trajectory = 1", "images"),
    ("turns SET text = x'ff00' WHERE trajectory = 1 AND number = 0", "text"),
    ("turns SET text = CAST(x'ff' AS TEXT) WHERE trajectory = 1 AND number = 0", "text"),
    ("scores SET value = 'x' WHERE trajectory = 1 AND term = 'format'", "value"),
]
TASKS = [
    (f"tasks SET images = 'notjson' WHERE key = {FIRST}", "images"),
    (f"tasks SET question = x'ff00' WHERE key = {FIRST}", "question"),
]
RUNS = [
    ("lineage SET outputs = '{' WHERE stage = 'curate'", "outputs"),
    ("lineage SET outputs = '[]' WHERE stage = 'curate'", "outputs"),
    ("lineage SET ended_at = 'yesterday' WHERE stage = 'curate'", "ended_at"),
]


@pytest.mark.parametrize(("change", "column"), [*TRAJECTORIES, *TASKS, *RUNS])
def test_verify_lists_the_unreadable_row_and_checks_the_rest(home, run, change, column):
    with open_store(home) as store:
        store.database.engine.dispose()
        harm(home, f"UPDATE {change}")
        harm(home, "UPDATE turns SET text = 'nicer' WHERE trajectory = 2 AND number = 0")
        verdict = verify(store)
    kind = {"tasks": "task", "lineage": "run"}.get(change.split()[0], "trajectory")
    name = {"task": r"[0-9a-f]{64}", "run": run.id, "trajectory": "1"}[kind]
    named = [one for one in verdict.findings if f"its {column} cannot be read" in one.problem]
    assert [one.kind for one in named] == [kind]
    assert re.fullmatch(name, named[0].name)
    others = [(one.kind, one.name, one.problem[:14]) for one in verdict.findings if one.name == "2"]
    assert others == [("trajectory", "2", "it was changed")]
    assert (verdict.checked["runs"], verdict.checked["tasks"]) == (2, 2)
    assert verdict.checked["trajectories"] == 2


def test_verify_lists_every_unreadable_row(home, codedance, run):
    harm(home, "UPDATE trajectories SET opening = '[' WHERE id = 1")
    harm(home, "UPDATE trajectories SET opening = '{' WHERE id = 2")
    harm(home, "UPDATE seals SET content = '{' WHERE kind = 'trajectories'")
    code, out, _ = codedance("store", "verify", "--json")
    found = {(one["kind"], one["name"]) for one in json.loads(out)["verdict"]["findings"]}
    assert code == FINDINGS
    assert found == {("trajectory", "1"), ("trajectory", "2"), ("run", run.id)}


@pytest.mark.parametrize(("change", "column"), [*TRAJECTORIES, *TASKS])
def test_export_continues_after_an_unreadable_row(home, codedance, run, tmp_path, change, column):
    harm(home, f"UPDATE {change}")
    folder = tmp_path / "copy"
    code, out, _ = codedance("store", "export", str(folder), "--json")
    assert code == FINDINGS
    (broken,) = json.loads(out)["exported"]["broken"]
    assert f"its {column} cannot be read" in broken["problem"]
    assert json.loads((folder / "run.json").read_text())["broken"] == [broken]
    lines = {
        name: (folder / f"{name}.jsonl").read_text().splitlines()
        for name in ("trajectories", "tasks")
    }
    is_task = change.startswith("tasks")
    assert [json.loads(line)["id"] for line in lines["trajectories"]] == [1, 2][not is_task :]
    assert len(lines["tasks"]) == 1


def test_export_continues_after_an_unreadable_run(home, codedance, run, tmp_path):
    harm(home, "UPDATE lineage SET outputs = '{' WHERE stage = 'curate'")
    folder = tmp_path / "copy"
    assert codedance("store", "export", str(folder))[0] == FINDINGS
    index = json.loads((folder / "run.json").read_text())
    assert [one["stage"] for one in index["runs"]] == ["pipeline"]
    assert [(one["kind"], one["name"]) for one in index["broken"]] == [("run", run.id)]


def test_export_lists_a_missing_task(home, codedance, run, tmp_path):
    harm(home, f"DELETE FROM tasks WHERE key = {FIRST}")
    code, out, _ = codedance("store", "export", str(tmp_path / "copy"), "--json")
    made = json.loads(out)["exported"]
    assert (code, made["trajectories"], made["tasks"]) == (FINDINGS, 2, 1)
    assert "is not there; trajectory 1 names it" in made["broken"][0]["problem"]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        *((f"UPDATE {change}", f"its {column} cannot be read") for change, column in TRAJECTORIES),
        *((f"UPDATE {change}", f"its {column} cannot be read") for change, column in TASKS),
        (f"DELETE FROM tasks WHERE key = {FIRST}", "is not there; trajectory 1 names it"),
    ],
)
def test_show_names_the_unreadable_row(home, codedance, run, statement, words):
    harm(home, statement)
    code, _, error = codedance("store", "show", "1")
    assert code == FAILED
    assert "trajectory 1 cannot be shown" in error
    assert words in " ".join(error.split())
    assert "Traceback" not in error


def test_a_command_that_needs_a_damaged_run_names_it(home, codedance, run):
    harm(home, "UPDATE lineage SET outputs = '{' WHERE stage = 'curate'")
    code, _, error = codedance("store", "list")
    assert code == FAILED
    assert f"the row of run {run.id} is damaged (its outputs cannot be read" in error


def test_prune_removes_nothing_while_a_row_with_images_is_unreadable(home, run):
    harm(home, "UPDATE executions SET images = '[' WHERE trajectory = 1")
    with open_store(home) as store:
        before = sorted(store.images.digests())
        with pytest.raises(StoreError, match="names images cannot be read"):
            prune(store, [], is_dry=False)
        assert sorted(store.images.digests()) == before
        prune(store, [store.lineage.get(run.id)], is_dry=False)
        assert list(store.images.digests()) == []
