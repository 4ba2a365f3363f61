"""``codedance store prune`` on the stages' folders: what is freed, and what a run needs."""

from __future__ import annotations

import fcntl
import json
from contextlib import ExitStack

import pytest
from codedance.pipelines.config.home import find_home
from codedance.pipelines.store.connection.errors import StoreUsageError
from codedance.pipelines.store.maintenance.checkpoints import sweep
from codedance.pipelines.store.store import open_store

from .makers import make_request
from .runs import first_run


def fill(folder, size=1000):
    """Make a checkpoint of so many bytes."""
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
        code, out, told = codedance("store", "prune", *arguments, "--json")
        assert code == 0, told
        return json.loads(out)

    return run


def test_a_finished_run_keeps_its_model_and_the_newest_checkpoint(home, prune):
    with open_store(home) as store:
        run = begin(store, home, "grpo")
    told = prune("--dry-run")
    assert told["bytes"] == 3000
    assert len(left_in(home.stages / run.id)) == 6
    assert prune("--yes")["bytes"] == 3000
    assert left_in(home.stages / run.id) == ["cards", "checkpoint-10", "final"]
    assert prune("--yes", "--keep", "0")["bytes"] == 1000
    assert left_in(home.stages / run.id) == ["cards", "final"]


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_an_unfinished_run_keeps_what_it_resumes_from(home, prune, status):
    with open_store(home) as store:
        run = begin(store, home, "grpo", status)
    fill(home.stages / run.id / "final.new")
    prune("--yes", "--keep", "0")
    assert left_in(home.stages / run.id) == ["cards", "checkpoint-10", "final", "state"]


def test_a_run_under_way_is_not_touched(home, prune):
    with open_store(home) as store:
        running = begin(store, home, "grpo", "running")
        locked = begin(store, home, "sft", "interrupted", seed=1)
    with (home.stages / locked.id / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        told = prune("--yes", "--keep", "0")
    assert told["bytes"] == 0
    assert any(locked.id in line for line in told["checkpoints"]["left"])
    for run in (running, locked):
        assert len(left_in(home.stages / run.id)) == 6


def test_folders_of_no_run_go_and_those_of_a_removed_run(home, prune):
    with open_store(home) as store:
        kept, gone = begin(store, home, "sft"), begin(store, home, "grpo", seed=1)
    fill(home.stages / "grpo-20200101-000000-abcd" / "final", 5000)
    told = prune(gone.id, "--dry-run")
    reasons = {one["path"].rpartition("/")[2]: one for one in told["checkpoints"]["freed"]}
    assert reasons["grpo-20200101-000000-abcd"]["size_bytes"] == 5000
    assert reasons[gone.id]["size_bytes"] == 5000
    assert left_in(home.stages) == sorted([kept.id, gone.id, "grpo-20200101-000000-abcd"])
    prune(gone.id, "--yes")
    assert left_in(home.stages) == [kept.id]


def test_nothing_is_an_orphan_to_a_store_that_knows_no_run(home, prune):
    """Somebody else's store, such as one whose address was forgotten, must cost no model."""
    fill(home.stages / "grpo-20200101-000000-abcd" / "final")
    told = prune("--yes")
    assert told["bytes"] == 0
    assert "CODEDANCE_STORE_URL" in told["checkpoints"]["left"][0]


def test_a_model_that_another_run_names_by_its_path_stays(home, codedance):
    with open_store(home) as store:
        first = begin(store, home, "grpo")
        model = home.stages / first.id / "final"
        second = begin(
            store, home, "sft", seed=1, parameters={"sft": {"base": str(model), "steps": 3}}
        )
    code, _, told = codedance("store", "prune", first.id, "--yes")
    assert code == 2
    assert f"{second.id} reads {first.id}" in told
    assert codedance("store", "prune", "--older-than", "0", "--yes")[0] == 0  # both go
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
        told = sweep(store.lineage, home.root, keep=0, is_dry=False)
    assert told.freed == ()
    assert "is outside" in told.left[0]
    assert (elsewhere / run.id / "checkpoint-7").is_dir()


def test_yes_and_dry_run_contradict_each_other(home, codedance):
    assert codedance("store", "prune", "--yes", "--dry-run")[0] == 2


def test_a_real_run_works_on_after_pruning(finished):
    pipeline = first_run(finished)
    made = sweep(finished.store.lineage, find_home().root, keep=0, is_dry=False)
    assert made.freed == ()
    for stage in ("sft", "grpo"):
        run = finished.store.lineage.get(pipeline.outputs[stage])
        assert (finished.home.stages / run.id / "final" / "model.safetensors").is_file()


def test_what_is_read_is_refused_by_name(home):
    from codedance.pipelines.store.maintenance.pruning import choose

    with open_store(home) as store:
        first = begin(store, home, "curate")
        begin(store, home, "sft", seed=1, inputs={"curate": first.id})
        with pytest.raises(StoreUsageError, match=f"reads {first.id}"):
            choose(store.lineage, [first], root=home.root)


@pytest.fixture
def at_work():
    """Hold a stage's lock as the process at work in it does."""
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
def test_a_training_at_work_is_not_removed(home, codedance, at_work, how, status):
    with open_store(home) as store:
        other = begin(store, home, "curate", seed=1)
        pipeline = store.lineage.begin(make_request("pipeline"))
        store.lineage.mark(pipeline.id, "interrupted")
        run = begin(store, home, "sft", status, parent=pipeline.id)
    at_work(home, run)
    chosen = {
        "named": [run.id],
        "by its pipeline": [pipeline.id],
        "by age": ["--older-than", "0"],
    }
    for last in ("--yes", "--dry-run"):
        code, _, told = codedance("store", "prune", *chosen[how], last)
        assert code == 3
        assert f"{run.id} is in use by another process: try again" in " ".join(told.split())
    assert held_by(home) == {other.id, pipeline.id, run.id}
    assert len(left_in(home.stages / run.id)) == len(left_in(home.stages / other.id)) == 6


def test_a_pipeline_is_not_removed_while_it_goes_on_with_a_stage_of_another(
    home, codedance, at_work
):
    with open_store(home) as store:
        old = store.lineage.begin(make_request("pipeline"))
        store.lineage.mark(old.id, "interrupted")
        run = begin(store, home, "sft", "running", parent=old.id)
        pipeline = store.lineage.begin(make_request("pipeline", seed=1))
    at_work(home, run)
    code, _, told = codedance("store", "prune", pipeline.id, "--yes")
    assert (code, f"{run.id} is in use" in told) == (3, True)
    assert held_by(home) == {old.id, run.id, pipeline.id}


def test_locks_are_held_while_rows_are_removed_and_let_go_after(home, prune, monkeypatch):
    from codedance.pipelines.config.file_lock import try_lock
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
def test_a_model_that_another_run_names_by_a_relative_path_stays(
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
    code, _, told = codedance("store", "prune", first.id, "--yes")
    assert (code, f"{second.id} reads {first.id}" in told) == (2, True)
    assert (home.stages / first.id / "final").is_dir()


@pytest.mark.parametrize("is_relative", [False, True])
@pytest.mark.parametrize("inside", ["", "/model.safetensors"])
def test_a_checkpoint_that_another_run_names_by_its_path_stays(home, prune, is_relative, inside):
    with open_store(home) as store:
        first = begin(store, home, "grpo")
        named = f"{home.stages / first.id}/checkpoint-2{inside}"
        named = named.removeprefix(f"{home.root}/") if is_relative else named
        parameters = {"sft": {"base": named}}
        second = begin(store, home, "sft", "interrupted", seed=1, parameters=parameters)
    prune("--yes", "--keep", "0")
    assert left_in(home.stages / first.id) == ["cards", "checkpoint-2", "final"]
    prune(second.id, "--yes", "--keep", "0")  # with who names it, it goes
    assert left_in(home.stages / first.id) == ["cards", "final"]


def test_a_lock_that_cannot_be_opened_counts_as_held(home, prune, tmp_path):
    with open_store(home) as store:
        run, gone = begin(store, home, "grpo"), begin(store, home, "sft", seed=1)
    for name, target in (("weird", tmp_path / "no" / "where"), ("wide", tmp_path / "made")):
        fill(home.stages / name / "final")
        (home.stages / name / ".lock").symlink_to(target)
    for last in ("--dry-run", "--yes"):
        told = prune(gone.id, last)
        assert [line.split()[0] for line in told["checkpoints"]["left"]] == ["weird", "wide"]
    assert left_in(home.stages) == sorted([run.id, "weird", "wide"])
    assert left_in(home.stages / run.id) == ["cards", "checkpoint-10", "final"]
    assert not (tmp_path / "made").exists()


def test_an_error_while_a_lock_is_held_is_told(home, monkeypatch):
    from codedance.pipelines.store.maintenance import checkpoints

    def fail(_):
        raise PermissionError("no rights to remove it")

    with open_store(home) as store:
        begin(store, home, "grpo")
        monkeypatch.setattr(checkpoints.shutil, "rmtree", fail)
        with pytest.raises(PermissionError, match="no rights"):
            sweep(store.lineage, home.root, is_dry=False)
