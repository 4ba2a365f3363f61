"""The viewer's pages contain the data of the store and nothing executable."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import replace

import pytest
import torch
from codedance.envs.rewards.terms import group_reward, group_turn_advantages
from codedance.envs.types import Tokens
from codedance.pipelines.store.images import pixel_digest
from codedance.pipelines.viewer import make_viewer
from codedance.pipelines.viewer.advantages import sibling_advantages
from codedance.pipelines.viewer.pieces import TokenReader
from codedance.pipelines.viewer.shards import safe_json
from codedance.pipelines.viewer.tools import tools_used
from codedance.policies import group_advantages
from PIL import Image

from ..makers import make_task, make_trajectory
from ..tiny_runs import first_run
from .viewed import (
    HOSTILE,
    begin_pipeline,
    fill,
    hostile_run,
    make_group,
    read_page,
    read_shard,
)


def test_every_trajectory_is_in_the_index_and_in_one_shard(session, run, tmp_path):
    made = make_viewer(session.store, session.home, [run], tmp_path)
    index, shards = read_page(made.html)
    assert made.count == made.inline == 16
    held = [row for shard in shards.values() for row in shard["trajectories"]]
    assert sorted(map(int, held)) == list(range(16))
    ids = {e.id for name in run.outputs.values() for e in session.store.episodes(name)}
    assert set(index["columns"]["id"]) == ids
    assert not list(tmp_path.glob("viewer/*"))


def test_rows_match_the_store(session, run, tmp_path):
    index, _ = read_page(make_viewer(session.store, session.home, [run], tmp_path).html)
    columns, names = index["columns"], index["names"]
    assert {len(values) for values in columns.values()} == {16}
    lost = [names["ending"][n] for n in columns["ending"]].index("infrastructure")
    assert columns["accuracy"][lost] is None
    trained = [n for n, s in enumerate(columns["stage"]) if names["stage"][s] == "grpo"]
    assert [columns["step"][n] for n in trained] == [3] * 8
    assert [columns["failed"][n] for n in trained] == [0, 0, 1, 1] * 2
    assert {index["tasks"][t]["family"] for t in columns["task"]} == {"count", "bars"}


def test_data_that_does_not_fit_in_the_page_is_in_files_beside_it(session, run, tmp_path):
    made = make_viewer(session.store, session.home, [run], tmp_path, inline=9000)
    index, shards = read_page(made.html)
    assert 0 < made.inline < made.count
    assert sum(len(safe_json(shard)) for shard in shards.values()) <= 9000
    assert index["inline"] == len(shards)
    held = {
        int(row): number
        for number in range(index["inline"])
        for row in shards[f"shard-{number}"]["trajectories"]
    }
    for path in (tmp_path / "viewer").glob("*.mjs"):
        number, shard = read_shard(path)
        assert path.name == f"{number:04}.mjs"
        held |= {int(row): number for row in shard["trajectories"]}
    assert [held[row] for row in range(16)] == index["columns"]["shard"]


def test_siblings_and_their_images_are_in_the_same_shard(session, run, tmp_path):
    index, _ = read_page(make_viewer(session.store, session.home, [run], tmp_path, inline=0).html)
    columns = index["columns"]
    shards = dict(read_shard(path) for path in (tmp_path / "viewer").glob("*.mjs"))
    homes = {}
    for row in range(16):
        key = tuple(columns[name][row] for name in ("stage", "task", "step"))
        assert homes.setdefault(key, columns["shard"][row]) == columns["shard"][row]
        shard = shards[columns["shard"][row]]
        asked = shard["trajectories"][str(row)]["opening"][-1]["parts"]
        digest = next(part["picture"] for part in asked if "picture" in part)
        with Image.open(io.BytesIO(base64.b64decode(shard["pictures"][digest]))) as image:
            assert pixel_digest(image) == digest


def test_rewriting_a_page_leaves_no_older_file(session, run, tmp_path):
    make_viewer(session.store, session.home, [run], tmp_path, inline=0)
    assert list((tmp_path / "viewer").glob("*.mjs"))
    make_viewer(session.store, session.home, [run], tmp_path)
    assert not list((tmp_path / "viewer").glob("*.mjs"))


def test_advantages_equal_those_computed_in_training(session, run, tmp_path):
    index, shards = read_page(make_viewer(session.store, session.home, [run], tmp_path).html)
    group = make_group(make_task(0), failed=1)
    rewards = torch.tensor([[group_reward(dict(one.reward_terms)) for one in group]]).double()
    expected = group_advantages(rewards)[0].tolist()
    turns = group_turn_advantages(group, reward="bat")
    rows = [n for n, step in enumerate(index["columns"]["step"]) if step == 3][:4]
    assert [index["columns"]["advantage"][n] for n in rows] == pytest.approx(expected, abs=1e-4)
    held = {row: value for shard in shards.values() for row, value in shard["trajectories"].items()}
    for row, of_turns in zip(rows, turns, strict=True):
        shown = [turn["advantage"] for turn in held[str(row)]["turns"]]
        assert shown == pytest.approx(of_turns)
    assert held[str(rows[-1])]["turns"][0]["tool_turn"] == pytest.approx(-0.1)
    assert any(expected)


def test_advantages_are_weighted_as_in_training(session, run):
    stage = session.store.lineage.get(run.outputs["grpo"])
    group = make_group(make_task(0), failed=1)
    half = replace(stage, parameters={"grpo": {"reward_weight": 0.5}})
    for one, other in zip(
        sibling_advantages(half, group), sibling_advantages(stage, group), strict=True
    ):
        assert one.group == 0.5 * other.group != 0.0
        assert one.turns == tuple(0.5 * value for value in other.turns)


def test_an_evaluation_has_no_advantages(session, run, tmp_path):
    index, _ = read_page(
        make_viewer(session.store, session.home, [run], tmp_path, stages=["evaluate"]).html
    )
    assert set(index["columns"]["advantage"]) == {None}
    assert len(index["columns"]["id"]) == 8


def test_contrast_shows_which_policy_was_right(session, run, tmp_path):
    index, _ = read_page(
        make_viewer(session.store, session.home, [run], tmp_path, stages=["evaluate"]).html
    )
    assert index["contrast"] == ["sft", "grpo"]
    lost = index["columns"]["accuracy"].index(None)
    of_task = zip(index["columns"]["task"], index["columns"]["change"], strict=True)
    lost_task = index["columns"]["task"][lost]
    assert {change for task, change in of_task if task != lost_task} == {"gained"}
    assert index["columns"]["change"][lost] is None


def test_two_runs_are_compared_on_the_same_tasks(session, run, tmp_path):
    other, grpo, evaluate = begin_pipeline(session.store)
    fill(session.store, grpo, evaluate, better="sft")
    made = make_viewer(session.store, session.home, [run, other], tmp_path)
    index, _ = read_page(made.html)
    columns = index["columns"]
    assert made.html.name == f"compare-{other.id}.html"
    assert [one["id"] for one in index["runs"]] == [run.id, other.id]
    assert len(index["tasks"]) == 4
    phases = [index["names"]["phase"][n] for n in columns["phase"]]
    judged = list(zip(phases, columns["change"], strict=True))
    assert {change for phase, change in judged if phase == "grpo/greedy"} == {"lost"}
    assert {change for phase, change in judged if phase == "sft/greedy"} == {"gained", None}


def test_a_run_in_progress_and_an_empty_run_have_a_page(session, tmp_path):
    pipeline, grpo, _ = begin_pipeline(session.store)
    assert make_viewer(session.store, session.home, [pipeline], tmp_path).count == 0
    session.store.lineage.mark(pipeline.id, "running", outputs={})
    task = make_task()
    session.store.add_trajectories(
        [task], make_group(task), stage_run=grpo.id, phase="train", step=1
    )
    run = session.store.lineage.get(pipeline.id)
    assert make_viewer(session.store, session.home, [run], tmp_path).count == 4


def test_unknown_stage_is_rejected(session, run, tmp_path):
    with pytest.raises(ValueError, match="'grop'; there are curate"):
        make_viewer(session.store, session.home, [run], tmp_path, stages=["grop"])


def test_a_missing_image_is_reported_and_stops_nothing(session, run, tmp_path):
    for path in session.store.images.root.rglob("*.png"):
        path.write_bytes(b"<svg onload='alert(1)'>")
    made = make_viewer(session.store, session.home, [run], tmp_path)
    _, shards = read_page(made.html)
    assert made.missing > 0
    assert {data for shard in shards.values() for data in shard["pictures"].values()} == {""}


def test_hostile_text_stays_inside_its_json(session, tmp_path):
    pipeline, _, evaluate = begin_pipeline(session.store, HOSTILE)
    hostile_run(session.store, evaluate)
    for budget in (0, 10**6):
        page = make_viewer(session.store, session.home, [pipeline], tmp_path, inline=budget).html
        text = page.read_text(encoding="utf-8")
        assert "owned'" not in re.sub(r'<script type="application/json".*?</script>', "", text)
        for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text):
            assert not re.search(r"[<>&\u2028]", block)
        for shard in (tmp_path / "viewer").glob("*.mjs"):
            assert not re.search(r"[<>&\u2028]", shard.read_text())
    index, shards = read_page(page)
    assert index["tasks"][0]["question"] == HOSTILE
    assert shards["shard-0"]["trajectories"]["0"]["turns"][1]["text"] == HOSTILE


def test_only_our_own_script_may_run(session, run, tmp_path):
    text = make_viewer(session.store, session.home, [run], tmp_path).html.read_text(
        encoding="utf-8"
    )
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert len(scripts) == len(styles) == 1
    for kind, body in (("script-src", scripts[0]), ("style-src", styles[0])):
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", scripts[0])
    assert not re.search(r'\s(src|href|on\w+)="', text.split("<body>")[0])


def test_tools_are_libraries_and_operations():
    code = "from PIL import Image\ndef f(a): return a\nx.crop(b).append(f(len(y)))\ncv2.blur(x)"
    assert tools_used(code) == {"PIL", "crop()", "blur()"}
    assert tools_used("this is no python") == frozenset()
    assert tools_used("(" * 5000) == frozenset()


def test_tokens_decoded_by_the_runs_own_tokenizer_yield_the_text(finished, tmp_path):
    made = make_viewer(
        finished.store, finished.home, [first_run(finished)], tmp_path, stages=["grpo"]
    )
    index, shards = read_page(made.html)
    decoded = 0
    for shard in shards.values():
        for content in shard["trajectories"].values():
            for turn, (places, logs) in zip(content["turns"], content["tokens"], strict=True):
                text = "".join(index["pieces"][place] for place in places)
                assert text.startswith(turn["text"])
                assert len(places) == len(logs)
                assert all(log <= 0 for log in logs)
                decoded += len(places)
    assert decoded > 0


def test_tokens_without_a_tokenizer_are_shown_by_number(session, tmp_path):
    pipeline, _, evaluate = begin_pipeline(session.store)
    task = make_task()
    tokens = Tokens((5, 600, 7), (0.0, -0.5, float("-inf")), (-1, 0, 0))
    given = make_trajectory(task, calls=0, tokens=tokens)
    session.store.add_trajectories([task], [given], stage_run=evaluate.id, phase="toy/greedy")
    index, shards = read_page(make_viewer(session.store, session.home, [pipeline], tmp_path).html)
    content = shards["shard-0"]["trajectories"]["0"]
    assert index["pieces"] == ["[600]", "[7]"]
    assert content["tokens"] == [[[0, 1], [-500, -99000]]]


def test_a_folder_without_a_tokenizer_does_not_fail(tmp_path):
    assert TokenReader(tmp_path).read([1, 22]) == ["[1]", "[22]"]
