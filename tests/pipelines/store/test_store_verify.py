"""Any external change of stored data is found, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from codedance.pipelines.store.connection.errors import StoreError
from codedance.pipelines.store.maintenance.pruning import prune
from codedance.pipelines.store.maintenance.verify import verify
from codedance.pipelines.store.store import open_store
from sqlalchemy import text

from ..makers import make_lost, make_picture, make_request, make_task, make_trajectory


@pytest.fixture
def run(store):
    """A run with two tasks and three trajectories."""
    run = store.lineage.begin(make_request())
    tasks = [make_task(n, tolerance=0) for n in range(2)]
    trajectories = [
        make_trajectory(tasks[0], calls=2, failed=1, pass_rate=1),
        make_trajectory(tasks[1]),
        make_lost(tasks[1]),
    ]
    keys = store.add_tasks(tasks)
    store.add_trajectories(tasks, trajectories, stage_run=run.id, phase="weak")
    store.set_curation(run.id, [decision(n, key) for n, key in enumerate(keys.values())])
    store.seal_stage(run.id)
    store.lineage.mark(run.id, "finished", outputs={"tasks": 2, "share": 0.1})
    return store.lineage.get(run.id)


def decision(position, key):
    return {
        "task_key": key,
        "position": position,
        "is_kept": position == 0,
        "reason": "kept" if position == 0 else "trivial",
        "band": "easy",
        "weak_rate": 1 / 3,
        "strong_rate": 1,
        "demonstration": "direct" if position == 0 else None,
    }


def change(store, statement):
    with store.database.engine.begin() as connection:
        connection.execute(text(statement))


def problems(store):
    return [(one.kind, one.problem) for one in verify(store).findings]


def test_unchanged_store_is_intact_and_was_checked_completely(store, run):
    store.images.put(make_picture(77))
    verdict = verify(store)
    assert verdict.is_whole
    assert verdict.checked == {
        "database": 1,
        "runs": 1,
        "tasks": 2,
        "trajectories": 3,
        "pictures": 5,  # of two tasks, of two successful calls, and an unreferenced one
    }
    assert (verdict.unused, verdict.unsealed, verdict.unknown) == (1, 0, {})


def test_new_grades_and_new_scores_are_not_damage(store, run):
    numbers = [episode.id for episode in store.episodes(run.id)]
    change(store, "UPDATE turns SET generation_seconds = 0.5")  # not in the digest
    store.set_accuracy({numbers[0]: 0.0})
    store.add_scores("again", {numbers[0]: {"accuracy": 0.0}})
    store.lineage.mark(run.id, "finished", outputs={"tasks": 2})
    assert verify(store).is_whole


@pytest.mark.parametrize(
    ("statement", "kind", "problem"),
    [
        ("UPDATE turns SET text = 'nicer' WHERE number = 0", "trajectory", "it was changed"),
        ("UPDATE executions SET stdout = '4'", "trajectory", "it was changed"),
        ("UPDATE trajectories SET answer = '4'", "trajectory", "it was changed"),
        ("UPDATE trajectories SET step = step + 1", "trajectory", "it was changed"),
        ("UPDATE trajectories SET tokens = NULL", "trajectory", "it was changed"),
        ("DELETE FROM turns WHERE number = 0", "trajectory", "it lacks a turn"),
        ("UPDATE executions SET number = number + 7", "trajectory", "belongs to no turn"),
        ("UPDATE tasks SET answer = '4'", "task", "it was changed"),
        ("UPDATE lineage SET seed = 1", "run", "its key no longer matches"),
        ("UPDATE lineage SET parameters = '{\"a\": 1}'", "run", "its key no longer matches"),
        ("UPDATE lineage SET outputs = '{\"tasks\": 9}'", "run", "its row was changed"),
        ("UPDATE lineage SET status = 'failed'", "run", "its row was changed"),
        ("UPDATE lineage SET parent = 'x'", "run", "its row was changed"),
        ("UPDATE lineage SET preset = 'full'", "run", "its row was changed"),
        ("UPDATE lineage SET git_commit = 'abc'", "run", "its row was changed"),
        ("UPDATE lineage SET error = 'none'", "run", "its row was changed"),
        ("UPDATE lineage SET ended_at = NULL", "run", "its row was changed"),
        ("UPDATE lineage SET started_at = '2026-01-01 00:00:00'", "run", "its row was changed"),
        ("UPDATE curation SET is_kept = FALSE", "run", "decisions of its curation"),
        ("UPDATE curation SET is_kept = NOT is_kept", "run", "decisions of its curation"),
        ("UPDATE curation SET reason = 'liked'", "run", "decisions of its curation"),
        ("UPDATE curation SET band = 'hard'", "run", "decisions of its curation"),
        ("UPDATE curation SET weak_rate = 0.5", "run", "decisions of its curation"),
        ("UPDATE curation SET demonstration = NULL", "run", "decisions of its curation"),
        ("DELETE FROM curation WHERE position = 1", "run", "decisions of its curation"),
        ("DELETE FROM curation", "run", "decisions of its curation"),
        ("UPDATE trajectories SET accuracy = 0.25", "trajectory", "its accuracy or scores"),
        ("UPDATE trajectories SET accuracy = NULL", "trajectory", "its accuracy or scores"),
        ("UPDATE scores SET value = 0.9", "trajectory", "its accuracy or scores"),
        ("UPDATE scores SET term = 'nice' WHERE term = 'format'", "trajectory", "or scores"),
        ("DELETE FROM scores WHERE term = 'format'", "trajectory", "its accuracy or scores"),
        ("DELETE FROM trajectories WHERE sample = 1", "run", "finished with 3 trajectories, but"),
        ("UPDATE tasks SET difficulty = 'hard'", "task", "its row was changed"),
        ("UPDATE tasks SET provenance = '{}'", "task", "its row was changed"),
        ("UPDATE seals SET content = '{}' WHERE kind = 'curation'", "run", "the seal of its"),
        ("UPDATE seals SET content = '{}' WHERE kind = 'trajectories'", "run", "the seal of its"),
        ("UPDATE seals SET content = '[]'", "run", "seal of its curation: its content cannot"),
        ("UPDATE lineage SET outputs = '[]'", "run", "outputs cannot be read: expected mapping"),
        ("UPDATE trajectories SET opening = '7'", "trajectory", "its opening cannot be read"),
        (
            'UPDATE trajectories SET opening = \'[{"role": "user"}]\'',
            "trajectory",
            "its opening cannot be read",
        ),
        ("UPDATE executions SET images = '[1]'", "trajectory", "execution of turn 0: its images"),
        ("UPDATE executions SET images = 'null'", "trajectory", "execution of turn 0: its images"),
        ("UPDATE turns SET reply = '[]'", "trajectory", "turn 0: its reply cannot be read"),
    ],
)
def test_changed_row_is_found(store, run, statement, kind, problem):
    change(store, statement)
    assert any(k == kind and problem in p for k, p in problems(store))


def test_changed_missing_and_broken_images_are_found(store, run):
    changed, missing, broken, *_ = sorted(store.images.digests())
    make_picture(50).save(store.images.path(changed))
    store.images.path(missing).unlink()
    store.images.path(broken).write_bytes(store.images.path(broken).read_bytes()[:60])
    found = {one.name: one.problem for one in verify(store).findings}
    assert sorted(found) == sorted([changed, missing, broken])
    assert "was changed: its digest no longer matches" in found[changed]
    assert "missing or broken" in found[missing]
    assert "missing or broken" in found[broken]
    assert all("shows it" in problem for problem in found.values())


def test_trajectories_from_before_digests_are_counted_separately(store, run):
    change(store, "UPDATE trajectories SET digest = NULL")
    verdict = verify(store)
    assert verdict.is_whole
    assert verdict.unsealed == 3


def test_data_stored_before_digests_existed_is_unknown_and_not_changed(store, run):
    for table, column in (
        ("lineage", "digest"),
        ("tasks", "digest"),
        ("trajectories", "digest"),
        ("trajectories", "verdict_digest"),
    ):
        change(store, f"UPDATE {table} SET {column} = NULL")
    change(store, "DELETE FROM seals")
    verdict = verify(store)
    assert verdict.is_whole
    assert verdict.unsealed == 3
    assert verdict.unknown == {
        "runs": 1,
        "curations": 1,
        "stages": 1,
        "tasks": 2,
        "verdicts": 3,
    }


def test_every_change_by_the_store_itself_updates_the_digest_of_the_run(store, run):
    store.lineage.mark(run.id, "failed", error="\udc80 broke", outputs={1: (2, None), "x": 0.1})
    assert verify(store).is_whole
    with_parent = store.lineage.begin(make_request(seed=1), parent=run.id)
    prune(store, [store.lineage.get(run.id)], is_dry=False)
    assert store.lineage.get(with_parent.id).parent is None
    assert verify(store).is_whole


def test_a_missing_run_that_others_reference_is_found(store):
    pipeline = store.lineage.begin(make_request("pipeline"))
    curate = store.lineage.begin(make_request("curate"), parent=pipeline.id)
    sft = store.lineage.begin(make_request("sft", inputs={"curate": curate.id}))
    store.lineage.mark(pipeline.id, "finished", outputs={"sft": sft.id, "report": "x.html"})
    assert verify(store).is_whole
    for lost, user, place in (
        (pipeline, curate, "parent"),
        (curate, sft, "input curate"),
        (sft, pipeline, "output sft"),
    ):
        with store.database.engine.begin() as connection:
            connection.execute(text("CREATE TABLE kept AS SELECT * FROM lineage"))
            connection.execute(text("DELETE FROM lineage WHERE id = :id"), {"id": lost.id})
        problem = f"its {place} names {lost.id}, which does not exist"
        (found,) = verify(store).findings
        assert (found.kind, found.name, found.problem) == ("run", user.id, problem)
        change(store, "DELETE FROM lineage")
        change(store, "INSERT INTO lineage SELECT * FROM kept")
        change(store, "DROP TABLE kept")


def test_a_stage_without_sealed_trajectories_is_unknown(store, run):
    change(store, "DELETE FROM seals WHERE kind = 'trajectories'")
    change(store, "DELETE FROM trajectories WHERE sample = 1")
    verdict = verify(store)
    assert (verdict.is_whole, verdict.unknown) == (True, {"stages": 1})


@pytest.fixture
def model(store, run, tmp_path):
    """A checkpoint of the run with two files."""
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer" / "vocabulary.json").write_text("{}")
    store.seal_stage(run.id, folder)
    store.lineage.mark(run.id, "finished", outputs={"model": str(folder)})
    assert verify(store).is_whole
    return folder


@pytest.mark.parametrize(
    ("harm", "name", "problem"),
    [
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"Weights"),
            "model.s",
            "changed",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.s", "had 7 bytes"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.s", "is missing"),
        (
            lambda folder: (folder / "tokenizer/vocabulary.json").write_text("[]"),
            "vocab",
            "changed",
        ),
        (lambda folder: (folder / "extra.bin").write_bytes(b""), "extra.bin", "was not there"),
        (lambda folder: shutil.rmtree(folder), "model", "folder is missing"),
    ],
)
def test_a_changed_checkpoint_is_found(store, model, harm, name, problem):
    harm(model)
    (found,) = verify(store).findings
    assert found.kind == "model"
    assert name in found.name
    assert problem in found.problem


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', '{"model.safetensors": [7]}'])
def test_a_model_with_an_invalid_seal_is_named(store, model, content):
    change(
        store, f"UPDATE seals SET content = '{content}' WHERE kind = 'model'".replace(":", "\\:")
    )
    (found,) = verify(store).findings
    assert found.kind == "run"
    assert "seal of its model" in found.problem


def test_a_checkpoint_without_a_digest_is_unknown(store, model):
    change(store, "DELETE FROM seals WHERE kind = 'model'")
    (model / "model.safetensors").write_bytes(b"other")
    verdict = verify(store)
    assert (verdict.is_whole, verdict.unknown) == (True, {"models": 1})


WRITER = """
import sys
from codedance.pipelines.config.home import Home
from codedance.pipelines.store.store import open_store
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from pipelines.makers import make_task, make_trajectory

with open_store(Home(Path(sys.argv[2]))) as store:
    for step in range(1, int(sys.argv[4]) + 1):
        tasks = [make_task(100 * step + n) for n in range(6)]
        given = [make_trajectory(task, calls=2) for task in tasks for _ in range(4)]
        store.add_trajectories(tasks, given, stage_run=sys.argv[3], phase=sys.argv[5], step=step)
        print(step, flush=True)
"""


def start_writer(home, run, *, steps, phase="train"):
    tests = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, tests, str(home.root), run.id, str(steps), phase],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


def test_kill_9_of_a_writer_leaves_whole_batches_and_an_intact_store(home, store):
    run = store.lineage.begin(make_request())
    writer = start_writer(home, run, steps=100_000)
    last = [int(writer.stdout.readline()) for _ in range(2)][-1]
    time.sleep(random.Random(0).uniform(0.0, 0.05))
    writer.kill()
    rest, _ = writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    steps = [episode.step for episode in store.episodes(run.id)]
    last = max([last, *map(int, rest.split())])
    assert set(steps) in (set(range(1, last + 1)), set(range(1, last + 2)))
    assert all(steps.count(step) == 24 for step in set(steps))
    assert verify(store).is_whole


KILLED_INSIDE = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from codedance.pipelines.config.home import Home
from codedance.pipelines.store.store import open_store

sys.path.insert(0, sys.argv[1])
from pipelines.makers import make_task, make_trajectory

with open_store(Home(Path(sys.argv[2]))) as store:
    @event.listens_for(store.database.engine, "after_cursor_execute")
    def die(connection, cursor, statement, *_):
        if "INTO executions" in statement:
            os.kill(os.getpid(), signal.SIGKILL)

    task = make_task()
    store.add_trajectories([task], [make_trajectory(task)], stage_run=sys.argv[3], phase="train")
"""


def test_kill_9_in_the_middle_of_a_transaction_leaves_nothing_of_it(home, store, run):
    tests = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", KILLED_INSIDE, tests, str(home.root), run.id]
    assert subprocess.run(command, check=False, env=os.environ).returncode == -signal.SIGKILL
    assert {episode.phase for episode in store.episodes(run.id)} == {"weak"}
    verdict = verify(store)
    assert verdict.is_whole
    assert verdict.checked["trajectories"] == 3


def test_writers_in_several_processes_lose_and_duplicate_nothing(home, store):
    run = store.lineage.begin(make_request())
    phases = ["one", "two", "two"]  # two writers store the same rows
    writers = [start_writer(home, run, steps=6, phase=phase) for phase in phases]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    for phase in ("one", "two"):
        found = [(e.step, e.task_key, e.sample) for e in store.episodes(run.id, phase)]
        assert len(found) == len(set(found)) == 6 * 24
    verdict = verify(store)
    assert verdict.is_whole
    assert verdict.checked["tasks"] == 36


def test_an_unreadable_store_is_an_error(home):
    with open_store(home) as store:
        change(store, "DROP TABLE scores")
        with pytest.raises(StoreError, match="scores"):
            store.scores("run")
