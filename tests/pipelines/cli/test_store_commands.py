"""``codedance store``: listing, export and removal, on both databases."""

from __future__ import annotations

import errno
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from codedance.pipelines.cli.app import app
from codedance.pipelines.cli.exit_codes import FINDINGS, USAGE, code_of
from codedance.pipelines.store.connection.errors import StoreError
from codedance.pipelines.store.images import pixel_digest
from codedance.pipelines.store.maintenance.verify import verify
from codedance.pipelines.store.schema import LineageRow
from codedance.pipelines.store.store import open_store
from PIL import Image
from sqlalchemy import text, update
from typer.testing import CliRunner

from ..makers import make_picture, make_request, make_task, make_trajectory


@pytest.fixture
def codedance():
    """Run a command of the store; returns its exit code and output."""

    def run(*arguments):
        done = CliRunner().invoke(app, ["store", *map(str, arguments)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout

    return run


def store_run(store, stage, numbers, *, parent=None, inputs=None):
    """Store a finished run of a stage, with a trajectory of each task."""
    request = make_request(stage, inputs=inputs, seed=numbers[0])
    run = store.lineage.begin(request, parent=parent)
    tasks = [make_task(number) for number in numbers]
    given = [
        make_trajectory(task, calls=number % 3) for number, task in zip(numbers, tasks, strict=True)
    ]
    store.add_trajectories(tasks, given, stage_run=run.id, phase="weak")
    store.lineage.mark(run.id, "finished", outputs={"tasks": len(tasks)})
    return run


@pytest.fixture
def runs(home):
    """Two pipeline runs; the second reused the curation of the first."""
    with open_store(home) as store:
        first = store.lineage.begin(make_request("pipeline"))
        curate = store_run(store, "curate", (1, 2), parent=first.id)
        sft = store_run(store, "sft", (2, 3), parent=first.id, inputs={"curate": curate.id})
        store.lineage.mark(first.id, "finished", outputs={"curate": curate.id, "sft": sft.id})
        second = store.lineage.begin(make_request("pipeline", seed=1))
        other = store_run(store, "sft", (4,), parent=second.id, inputs={"curate": curate.id})
        store.lineage.mark(second.id, "finished", outputs={"curate": curate.id, "sft": other.id})
    return {"first": first, "curate": curate, "sft": sft, "second": second, "other": other}


def test_list_shows_runs_and_the_contents_of_the_store(codedance, runs):
    code, out = codedance("list")
    assert code == 0
    assert all(run.id in out for run in runs.values())
    assert "5 trajectories" in out
    assert all(len(line) <= 80 or "/" in line for line in out.splitlines())
    code, out = codedance("list", "--stage", "sft", "--limit", 1, "--json")
    document = json.loads(out)
    assert [run["run"] for run in document["runs"]] == [runs["other"].id]
    assert document["runs"][0]["trajectories"] == 1
    assert document["store"]["rows"]["trajectories"] == 5
    assert document["store"]["pictures"] == 6  # of four tasks and of two calls
    assert document["store"]["database_bytes"] > 0


def test_list_of_an_empty_store_names_the_command_that_fills_it(codedance, home):
    assert "`codedance run` starts one" in codedance("list")[1]


def test_show_prints_a_run_with_its_phases(codedance, runs):
    code, out = codedance("show", runs["curate"].id)
    assert code == 0
    assert "finished" in out
    assert "weak   2" in out
    document = json.loads(codedance("show", runs["curate"].id, "--json")[1])
    assert document["phases"][0]["trajectories"] == 2
    assert document["phases"][0]["accuracy"] == 1.0


def test_show_prints_a_trajectory_from_question_to_rewards(codedance, home, runs):
    with open_store(home) as store:
        number = store.episodes(runs["curate"].id)[0].id
    code, out = codedance("show", number)
    assert code == 0
    for words in ("How many dots are there?", "print(0)", "→ ok", "ended: answered", "format -0.2"):
        assert words in out
    assert json.loads(codedance("show", number, "--json")[1])["task"]["answer"] == "3"


def test_the_error_for_an_unknown_number_has_a_command_that_lists_numbers(codedance, home, runs):
    with pytest.raises(StoreError, match="no trajectory 99999") as caught:
        codedance("show", 99999)
    named = re.search("`codedance store (.*)`", str(caught.value)).group(1)
    code, out = codedance(*named.split())
    assert code == 0
    number = re.search("`codedance store show ([0-9]+)`", out).group(1)
    assert codedance("show", number)[1].startswith(f"trajectory {number} of ")
    _, out = codedance("show", runs["first"].id)
    assert f"codedance store show {runs['curate'].id}" in out


def test_the_error_for_a_number_in_an_empty_store_has_a_command_that_fills_it(codedance, home):
    with pytest.raises(StoreError, match="has none yet: `codedance run` records some"):
        codedance("show", 1)


def test_list_names_the_limit_that_shows_all(codedance, runs):
    _, out = codedance("list", "--limit", 2)
    limit = re.search("--limit ([0-9]+) shows all", out).group(1)
    code, out = codedance("list", "--limit", limit)
    assert code == 0
    assert all(run.id in out for run in runs.values())


def test_show_escapes_control_sequences_of_a_model(codedance, home, runs):
    with open_store(home) as store:
        task = make_task(9, question="\x1b[2J\x07How many?")
        run = runs["curate"].id
        store.add_trajectories([task], [make_trajectory(task)], stage_run=run, phase="odd")
        number = store.episodes(run, "odd")[0].id
    _, out = codedance("show", number)
    assert "\x1b" not in out
    assert "\\x1b[2J" in out


def test_export_contains_everything_in_open_formats(codedance, runs, tmp_path):
    folder = tmp_path / "copy"
    code, out = codedance("export", folder, "--run", runs["first"].id)
    assert code == 0
    assert "4 trajectories of 3 runs, 3 tasks, 5 pictures" in out
    about = json.loads((folder / "run.json").read_text())
    assert about["format"] == 1
    assert {run["id"] for run in about["runs"]} == {runs[n].id for n in ("first", "curate", "sft")}
    tasks = [json.loads(line) for line in (folder / "tasks.jsonl").read_text().splitlines()]
    assert len(tasks) == 3
    lines = (folder / "trajectories.jsonl").read_text().splitlines()
    given = [json.loads(line) for line in lines]
    assert {one["task_key"] for one in given} == {task["key"] for task in tasks}
    one = next(one for one in given if one["tool_calls"] == 2)
    assert one["turns"][0]["execution"]["stdout"] == "0\n"
    assert one["turns"][-1]["execution"] is None
    assert one["scores"]["original"]["format"] == -0.2
    assert one["tokens"]["ids"] == [5, 6, 7]
    for digest in (*tasks[0]["images"], *one["turns"][0]["execution"]["images"]):
        with Image.open(folder / "images" / f"{digest}.png") as picture:
            assert pixel_digest(picture) == digest


def test_export_omits_tokens_on_request_and_overwrites_nothing(codedance, runs, tmp_path):
    folder = tmp_path / "copy"
    document = json.loads(codedance("export", folder, "--no-tokens", "--json")[1])
    assert document["exported"]["trajectories"] == 3  # of the newest run, which reused a curation
    assert "tokens" not in json.loads((folder / "trajectories.jsonl").read_text().splitlines()[0])
    with pytest.raises(StoreError, match="exists already") as caught:
        codedance("export", folder)
    assert code_of(caught.value) == USAGE


def test_export_omits_and_lists_damaged_data_and_its_exit_code_reports_it(
    codedance, home, runs, tmp_path
):
    with open_store(home) as store:
        changed, missing, cut, *rest = sorted(store.images.digests())
        make_picture(50).save(store.images.path(changed))
        store.images.path(missing).unlink()
        store.images.path(cut).write_bytes(store.images.path(cut).read_bytes()[:50])
        with store.database.engine.begin() as connection:
            connection.execute(
                text("UPDATE trajectories SET tokens = :t WHERE id = 1"), {"t": b"x"}
            )
    folder = tmp_path / "copy"
    code, out = codedance("export", folder, "--run", runs["first"].id, "--run", runs["second"].id)
    assert code == FINDINGS
    assert all(f"BAD  picture {digest}" in out for digest in (changed, missing, cut))
    assert "BAD  tokens trajectory 1" in out
    assert "5 trajectories of 5 runs, 4 tasks, 3 pictures" in out
    assert sorted(path.stem for path in (folder / "images").iterdir()) == sorted(rest)
    broken = json.loads((folder / "run.json").read_text())["broken"]
    assert {one["name"] for one in broken} == {changed, missing, cut, "trajectory 1"}
    assert all("shows it" in one["problem"] for one in broken if one["kind"] == "picture")
    given = [json.loads(line) for line in (folder / "trajectories.jsonl").read_text().splitlines()]
    assert [one["tokens"] is None for one in given] == [True, False, False, False, False]
    code, out = codedance("export", tmp_path / "again", "--json")
    assert (code, bool(json.loads(out)["exported"]["broken"])) == (FINDINGS, True)


def test_export_of_an_intact_store_lists_nothing_as_broken(codedance, runs, tmp_path):
    code, out = codedance("export", tmp_path / "copy", "--run", runs["first"].id)
    assert (code, "BAD" in out, "incomplete" in out) == (0, False, False)
    assert json.loads((tmp_path / "copy" / "run.json").read_text())["broken"] == []


def test_export_without_disk_space_leaves_no_folder(codedance, runs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("codedance.pipelines.data.exporting.shutil.copyfile", full)
    with pytest.raises(StoreError, match="no space left"):
        codedance("export", tmp_path / "copy")
    assert list(tmp_path.glob("copy*")) == []


def test_verify_exits_with_1_when_something_is_wrong(codedance, home, runs):
    code, out = codedance("verify")
    assert (code, out.splitlines()[-1]) == (0, "the store is whole")
    with open_store(home) as store:
        store.images.path(next(store.images.digests())).unlink()
    code, out = codedance("verify")
    assert code == 1
    assert out.startswith("BAD  picture ")
    code, out = codedance("verify", "--json")
    document = json.loads(out)
    assert (code, document["is_whole"], document["verdict"]["wrong"]) == (1, False, 1)
    assert document["verdict"]["findings"][0]["kind"] == "picture"


def test_prune_without_yes_only_lists(codedance, home, runs):
    _, out = codedance("prune", runs["second"].id)
    assert "would remove 2 runs with 1 trajectories, 1 task and 1 picture" in out
    assert "use --yes" in out
    with open_store(home) as store:
        assert len(store.lineage.find()) == 5
        assert verify(store).unused == 0


def test_prune_removes_a_run_and_data_referenced_only_by_it(codedance, home, runs):
    document = json.loads(codedance("prune", runs["second"].id, "--yes", "--json")[1])["pruned"]
    assert sorted(document["runs"]) == sorted([runs["second"].id, runs["other"].id])
    assert (document["trajectories"], document["tasks"], document["pictures"]) == (1, 1, 1)
    with open_store(home) as store:
        assert len(store.lineage.find()) == 3
        verdict = verify(store)
        assert verdict.is_whole
        assert verdict.unused == 0
        assert verdict.checked["trajectories"] == 4


def test_prune_keeps_data_used_by_others(codedance, home, runs):
    with pytest.raises(StoreError, match=f"reads {runs['curate'].id}"):
        codedance("prune", runs["curate"].id, "--yes")
    document = json.loads(codedance("prune", runs["first"].id, "--yes", "--json")[1])["pruned"]
    assert sorted(document["runs"]) == sorted([runs["first"].id, runs["sft"].id])
    with open_store(home) as store:
        assert store.lineage.get(runs["curate"].id).parent is None
        assert verify(store).is_whole


def test_prune_by_age_removes_old_runs_and_keeps_data_used_by_new_ones(codedance, home, runs):
    old = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=40)
    with open_store(home) as store:
        names = [runs[name].id for name in ("first", "curate", "sft")]
        change = update(LineageRow).where(LineageRow.id.in_(names)).values(started_at=old)
        store.database.run(lambda session: session.execute(change))
    document = json.loads(codedance("prune", "--older-than", 30, "--yes", "--json")[1])["pruned"]
    assert sorted(document["runs"]) == sorted([runs["first"].id, runs["sft"].id])


def test_prune_removes_images_only_while_no_process_writes(codedance, home, runs):
    with open_store(home) as writer:
        waste = writer.images.path(writer.images.put(make_picture(88)))
        document = json.loads(codedance("prune", "--yes", "--json")[1])["pruned"]
        assert document["pictures"] is None
        assert waste.exists()
    assert json.loads(codedance("prune", "--yes", "--json")[1])["pruned"]["pictures"] == 1
    assert not waste.exists()
