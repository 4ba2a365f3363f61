"""The model benchmarks do the same work in each contestant, and report their measurements."""

from __future__ import annotations

import json

import pytest
from codedance.policies.models.nano import NanoConfig, build_nano

from benchmarks.measuring.episodes import PausingSandbox, bench_tasks, open_episodes
from benchmarks.measuring.generators import PlainGenerate
from benchmarks.measuring.model_tables import (
    as_json,
    rollout_lines,
    rollout_tables,
    update_lines,
    update_table,
)
from benchmarks.measuring.rollout import RolloutBench, model_folder
from benchmarks.measuring.update import OURS, PLAIN, SDPA, UpdateBench


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A tiny untrained nano model, which every contestant can run."""
    config = NanoConfig(width=32, text_layers=1, vision_width=32, vision_layers=1, vocabulary=320)
    return str(build_nano(tmp_path_factory.mktemp("nano"), ["print(1)"], config))


@pytest.mark.slow
def test_all_players_play_the_same_number_of_trajectories(untrained):
    pytest.importorskip("trl")
    bench = RolloutBench(untrained, rounds=1, tasks=2, samples=2, pause_seconds=0.001)
    report = bench.run()
    assert report.missing == {}
    names = [list(group.rounds) for group in report.groups]
    assert names == [
        ["ours", "ours, deterministic: false", "model.generate"],
        ["ours", "TRL's GRPOTrainer"],
    ]
    for group in report.groups:
        for rounds in group.rounds.values():
            assert [one.trajectories for one in rounds] == [4]
            assert all(one.tokens >= 4 and one.seconds > 0 for one in rounds)
        assert group.ratio("ours") == 1.0
    text = "\n".join([*rollout_lines(report), *(t.title for t in rollout_tables(report))])
    assert "4 trajectories per round" in text
    assert json.loads(as_json(report))["groups"][0]["ratio"]["ours"] == 1.0


def test_a_missing_trl_is_a_line_and_not_a_failure(untrained, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "trl", None)
    report = RolloutBench(untrained, rounds=1, tasks=1, samples=2, pause_seconds=0.0).run()
    assert list(report.groups[1].rounds) == ["ours"]
    assert any("skipped TRL's GRPOTrainer" in line for line in rollout_lines(report))


@pytest.mark.slow
def test_updates_compute_the_same_loss(untrained):
    report = UpdateBench(untrained, rounds=1, trajectories=8).run()
    assert report.losses[PLAIN] == pytest.approx(report.losses[OURS], abs=1e-6)
    assert report.losses[SDPA] == pytest.approx(report.losses[OURS], abs=1e-6)
    assert report.flops > 1e6
    assert report.share is not None
    assert 0 < report.share < 1.5
    assert len(update_table(report).rows) == 3
    assert any("of the speed of a plain matrix product" in line for line in update_lines(report))
    assert json.loads(as_json(report))["tokens"] == report.tokens


def test_plain_generate_reads_images_and_never_writes_control_tokens(untrained):
    player = PlainGenerate(untrained, PausingSandbox(0.0))
    (one,) = open_episodes(bench_tasks(1), 1, PausingSandbox(0.0), max_pixels=None)
    chat = player._ours.chat
    ids = chat.open_prompt(one.conversation.messages)
    images = list(one.conversation.messages[0].images)
    (written,) = player._write([ids], [images])
    assert not set(written) & chat.forbidden_ids
    assert written.count(chat.end_id) <= 1


def test_a_missing_model_is_reported(tmp_path):
    with pytest.raises(ValueError, match="--model"):
        model_folder(str(tmp_path))
