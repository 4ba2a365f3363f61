"""``codedance store prune`` on the stages' folders: frees space, and keeps what runs need."""

from __future__ import annotations

import fcntl
import json
from contextlib import ExitStack

import pytest
from codedance.pipelines.config.home import find_home
from codedance.pipelines.store.connection.errors import StoreUsageError
from codedance.pipelines.store.maintenance.checkpoints import sweep
from codedance.pipelines.store.store import open_store

from ..makers import make_request
from ..tiny_runs import first_run


def fill(folder, size=1000):
    """Write a checkpoint of ``size`` bytes."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * size)
    return folder


def begin(store, home, stage, status="finished", *, parent=None, **request):
    """Store a run with a final model, a state and three intermediate checkpoints."""
    run = store.lineage.begin(make_request(stage, **request), parent=parent)
    folder = home.stages / run.id
    (folder / "cards").mkdir(parents=True)
    (folder / ".lock").touch()
    fill(folder / "final")
    fill(folder / "state")
    for step in (2, 9, 10):
        fill(folder / f"checkpoint-{step}")
    store.lineage.mark(run.id, status, outputs={"model": str(folder / "final")})
    return run


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.fixture
def prune(codedance, home):
    def run(*arguments):
        code, out, error = codedance("store", "prune", *arguments, "--json")
        assert code == 0, error
        return json.loads(out)

    return run


def test_a_finished_run_keeps_its_model_and_the_newest_checkpoint(home, prune):
    with open_store(home) as store:
        run = begin(store, home, "grpo")
    report = prune("--dry-run")
    assert report["bytes"] == 3000
    assert len(left_in(home.stages / run.id)) == 6
    assert prune("--yes")["bytes"] == 3000
    assert left_in(home.stages / run.id) == ["cards", "checkpoint-10", "final"]
    assert prune("--yes", "--keep", "0")["bytes"] == 1000
    assert left_in(home.stages / run.id) == ["cards", "final"]


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_an_unfinished_run_keeps_its_resumable_state(home, prune, status):
    with open_store(home) as store:
        run = begin(store, home, "grpo", status)
    fill(home.stages / run.id / "final.new")
    prune("--yes", "--keep", "0")
    assert left_in(home.stages / run.id) == ["cards", "checkpoint-10", "final", "state"]


def test_a_run_in_progress_is_not_changed(home, prune):
    with open_store(home) as store:
        running = begin(store, home, "grpo", "running")
        locked = begin(store, home, "sft", "interrupted", seed=1)
    with (home.stages / locked.id / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        report = prune("--yes", "--keep", "0")
    assert report["bytes"] == 0
    assert any(locked.id in line for line in report["checkpoints"]["left"])
    for run in (running, locked):
        assert len(left_in(home.stages / run.id)) == 6


def test_folders_without_a_run_and_of_a_removed_run_are_removed(home, prune):
    with open_store(home) as store:
        kept, gone = begin(store, home, "sft"), begin(store, home, "grpo", seed=1)
    fill(home.stages / "grpo-20200101-000000-abcd" / "final", 5000)
    report = prune(gone.id, "--dry-run")
    reasons = {one["path"].rpartition("/")[2]: one for one in report["checkpoints"]["freed"]}
    assert reasons["grpo-20200101-000000-abcd"]["size_bytes"] == 5000
    assert reasons[gone.id]["size_bytes"] == 5000
    assert left_in(home.stages) == sorted([kept.id, gone.id, "grpo-20200101-000000-abcd"])
    prune(gone.id, "--yes")
    assert left_in(home.stages) == [kept.id]


def test_an_empty_store_has_no_orphans(home, prune):
    """Another store, for example because of an unset address, must not delete models."""
    fill(home.stages / "grpo-20200101-000000-abcd" / "final")
    report = prune("--yes")
    assert report["bytes"] == 0
    assert "CODEDANCE_STORE_URL" in report["checkpoints"]["left"][0]


def test_a_model_referenced_by_path_in_another_run_is_kept(home, codedance):
    with open_store(home) as store:
        first = begin(store, home, "grpo")
        model = home.stages / first.id / "final"
        second = begin(
            store, home, "sft", seed=1, parameters={"sft": {"base": str(model), "steps": 3}}
        )
    code, _, error = codedance("store", "prune", first.id, "--yes")
    assert code == 2
    assert f"{second.id} reads {first.id}" in error
    assert codedance("store", "prune", "--older-than", "0", "--yes")[0] == 0  # removes both
    assert not model.exists()


def test_nothing_outside_the_home_is_removed(home, prune, tmp_path):
    outside = fill(tmp_path / "outside")
    with open_store(home) as store:
        run = begin(store, home, "grpo")
    (home.stages / "a-link").symlink_to(outside)
    (home.stages / run.id / "checkpoint-1").symlink_to(outside)
    (home.stages / run.id / "checkpoint-2" / "link").symlink_to(outside)
    prune("--yes", "--keep", "0")
    assert (outside / "model.safetensors").is_file()
    elsewhere = tmp_path / "stages"
    home.stages.rename(elsewhere)
    home.stages.symlink_to(elsewhere)
    fill(elsewhere / run.id / "checkpoint-7")
    with open_store(home) as store:
        report = sweep(store.lineage, home.root, keep=0, is_dry=False)
    assert report.freed == ()
    assert "is outside" in report.left[0]
    assert (elsewhere / run.id / "checkpoint-7").is_dir()


def test_yes_and_dry_run_contradict_each_other(home, codedance):
    assert codedance("store", "prune", "--yes", "--dry-run")[0] == 2


def test_a_real_run_still_works_after_pruning(finished):
    pipeline = first_run(finished)
    made = sweep(finished.store.lineage, find_home().root, keep=0, is_dry=False)
    assert made.freed == ()
    for stage in ("sft", "grpo"):
        run = finished.store.lineage.get(pipeline.outputs[stage])
        assert (finished.home.stages / run.id / "final" / "model.safetensors").is_file()


def test_pruning_a_run_in_use_by_others_names_them(home):
    from codedance.pipelines.store.maintenance.pruning import choose

    with open_store(home) as store:
        first = begin(store, home, "curate")
        begin(store, home, "sft", seed=1, inputs={"curate": first.id})
        with pytest.raises(StoreUsageError, match=f"reads {first.id}"):
            choose(store.lineage, [first], root=home.root)


@pytest.fixture
def locked_by_another():
    """Hold a stage's lock like the process that works on it."""
    with ExitStack() as held:

        def hold(home, run):
            handle = held.enter_context((home.stages / run.id / ".lock").open("a"))
            fcntl.flock(handle, fcntl.LOCK_EX)

        yield hold


def held_by(home):
    with open_store(home) as store:
        return {run.id for run in store.lineage.find()}


@pytest.mark.parametrize("status", ["running", "interrupted", "finished"])
@pytest.mark.parametrize("how", ["named", "by its pipeline", "by age"])
def test_a_running_training_is_not_removed(home, codedance, locked_by_another, how, status):
    with open_store(home) as store:
        other = begin(store, home, "curate", seed=1)
        pipeline = store.lineage.begin(make_request("pipeline"))
        store.lineage.mark(pipeline.id, "interrupted")
        run = begin(store, home, "sft", status, parent=pipeline.id)
    locked_by_another(home, run)
    chosen = {
        "named": [run.id],
        "by its pipeline": [pipeline.id],
        "by age": ["--older-than", "0"],
    }
    for last in ("--yes", "--dry-run"):
        code, _, error = codedance("store", "prune", *chosen[how], last)
        assert code == 3
        assert f"{run.id} is in use by another process: try again" in " ".join(error.split())
    assert held_by(home) == {other.id, pipeline.id, run.id}
    assert len(left_in(home.stages / run.id)) == len(left_in(home.stages / other.id)) == 6


def test_a_pipeline_is_not_removed_while_it_continues_a_stage_of_another(
    home, codedance, locked_by_another
):
    with open_store(home) as store:
        old = store.lineage.begin(make_request("pipeline"))
        store.lineage.mark(old.id, "interrupted")
        run = begin(store, home, "sft", "running", parent=old.id)
        pipeline = store.lineage.begin(make_request("pipeline", seed=1))
    locked_by_another(home, run)
    code, _, error = codedance("store", "prune", pipeline.id, "--yes")
    assert (code, f"{run.id} is in use" in error) == (3, True)
    assert held_by(home) == {old.id, run.id, pipeline.id}


def test_locks_are_held_while_rows_are_removed_and_then_released(home, prune, monkeypatch):
    from codedance.pipelines.concurrency.file_lock import try_lock
    from codedance.pipelines.store.maintenance import pruning

    with open_store(home) as store:
        run = begin(store, home, "sft", "interrupted")
    seen, remove = [], pruning._remove

    def watched(*arguments, **options):
        with try_lock(home.stages / run.id / ".lock") as is_ours:
            seen.append(is_ours)
        return remove(*arguments, **options)

    monkeypatch.setattr(pruning, "_remove", watched)
    prune(run.id, "--yes")
    assert seen == [False]
    assert not (home.stages / run.id).exists()


@pytest.mark.parametrize("place", ["of the home", "around the home", "here", "of the user"])
def test_a_model_referenced_by_a_relative_path_is_kept(
    home, codedance, monkeypatch, tmp_path, place
):
    with open_store(home) as store:
        first = begin(store, home, "grpo")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        monkeypatch.setenv("HOME", str(tmp_path))
        model = {
            "of the home": f"stages/{first.id}/final",
            "around the home": f"home/stages/{first.id}/final",
            "here": f"../home/stages/{first.id}/final",
            "of the user": f"~/home/stages/{first.id}/final",
        }[place]
        parameters = {"policies": {"final": model}, "text": "x" * 5000}
        second = begin(store, home, "evaluate", "interrupted", seed=1, parameters=parameters)
    code, _, error = codedance("store", "prune", first.id, "--yes")
    assert (code, f"{second.id} reads {first.id}" in error) == (2, True)
    assert (home.stages / first.id / "final").is_dir()


@pytest.mark.parametrize("is_relative", [False, True])
@pytest.mark.parametrize("inside", ["", "/model.safetensors"])
def test_a_checkpoint_referenced_by_path_in_another_run_is_kept(home, prune, is_relative, inside):
    with open_store(home) as store:
        first = begin(store, home, "grpo")
        named = f"{home.stages / first.id}/checkpoint-2{inside}"
        named = named.removeprefix(f"{home.root}/") if is_relative else named
        parameters = {"sft": {"base": named}}
        second = begin(store, home, "sft", "interrupted", seed=1, parameters=parameters)
    prune("--yes", "--keep", "0")
    assert left_in(home.stages / first.id) == ["cards", "checkpoint-2", "final"]
    prune(second.id, "--yes", "--keep", "0")  # removed together with the run that references it
    assert left_in(home.stages / first.id) == ["cards", "final"]


def test_a_lock_that_cannot_be_opened_counts_as_held(home, prune, tmp_path):
    with open_store(home) as store:
        run, gone = begin(store, home, "grpo"), begin(store, home, "sft", seed=1)
    for name, target in (("weird", tmp_path / "no" / "where"), ("wide", tmp_path / "made")):
        fill(home.stages / name / "final")
        (home.stages / name / ".lock").symlink_to(target)
    for last in ("--dry-run", "--yes"):
        report = prune(gone.id, last)
        assert [line.split()[0] for line in report["checkpoints"]["left"]] == ["weird", "wide"]
    assert left_in(home.stages) == sorted([run.id, "weird", "wide"])
    assert left_in(home.stages / run.id) == ["cards", "checkpoint-10", "final"]
    assert not (tmp_path / "made").exists()


def test_an_error_while_a_lock_is_held_is_reported(home, monkeypatch):
    from codedance.pipelines.store.maintenance import checkpoints

    def fail(_):
        raise PermissionError("no rights to remove it")

    with open_store(home) as store:
        begin(store, home, "grpo")
        monkeypatch.setattr(checkpoints.shutil, "rmtree", fail)
        with pytest.raises(PermissionError, match="no rights"):
            sweep(store.lineage, home.root, is_dry=False)
