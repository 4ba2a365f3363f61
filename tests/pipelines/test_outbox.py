"""The spool keeps what it was given: on a full disk, for the MLflow that it was written for."""

from __future__ import annotations

import json
import resource
import signal
from contextlib import contextmanager

import pytest
from codedance.pipelines.tracking.line_file import LineFile
from codedance.pipelines.tracking.metrics_file import MetricsFile, read_metrics
from codedance.pipelines.tracking.mlflow.writer import is_refusal, readable, shortened
from codedance.pipelines.tracking.outbox import (
    Address,
    OutboxReader,
    count_unsent,
    keep_refused,
    offer_again,
)
from codedance.pipelines.tracking.tracker import Tracker


@contextmanager
def full_disk(room):
    """Let no file of this process grow past ``room`` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_lines_that_find_no_room_are_written_later_in_order(tmp_path):
    file = LineFile(tmp_path / "lines")
    assert file.append(b"first\n")
    with full_disk(10):
        assert not file.append(b"second, too long\n")
        assert not file.append(b"third\n")
    assert file.waiting == 2
    assert (tmp_path / "lines").read_bytes() == b"first\n", "half a line was left"
    assert file.append(b"fourth\n")
    file.close()
    text = b"first\nsecond, too long\nthird\nfourth\n"
    assert (tmp_path / "lines").read_bytes() == text
    assert file.lost == 0


def test_lines_that_never_find_room_are_counted(tmp_path):
    file = LineFile(tmp_path / "lines")
    with full_disk(3):
        file.append(b"one line\n")
        file.close()
    assert file.lost == 1


def test_figures_told_on_a_full_disk_reach_the_spool_when_there_is_room(home):
    tracker = Tracker(home.outbox)
    with full_disk(200):
        for step in range(20):
            tracker.metrics("run", step, {"reward": step / 2})
    tracker.metrics("run", 20, {"reward": 10.0})
    tracker.close()
    events = [event for event, _ in OutboxReader(tracker.path).read()]
    assert [event["step"] for event in events] == list(range(21))
    assert tracker.lost == 0


def test_figures_of_a_stage_wait_for_room_as_well(tmp_path):
    file = MetricsFile(tmp_path)
    with full_disk(100):
        for step in range(1, 9):
            file.append(step, {"loss": 1.0 / step})
    file.append(9, {"loss": 0.0})
    assert [step for step, _ in read_metrics(tmp_path)["loss"]] == list(range(1, 10))


def test_a_spool_file_says_which_mlflow_it_is_for(home):
    address = Address("http://mlflow.example", "vision", None, "abc")
    tracker = Tracker(home.outbox, address=address)
    tracker.metrics("run", 1, {"a": 1.0})
    tracker.close()
    reader = OutboxReader(tracker.path)
    assert reader.address == address
    assert [event["kind"] for event, _ in reader.read()] == ["address", "metrics"]
    assert count_unsent(home.outbox) == 1


def test_a_spool_file_may_be_read_by_its_owner_alone(home):
    tracker = Tracker(home.outbox, address=Address("http://me:secret@mlflow.example"))
    tracker.metrics("run", 1, {"a": 1.0})
    assert tracker.path.stat().st_mode & 0o077 == 0
    tracker.close()


def test_experiment_and_run_are_read_as_mlflow_reads_them():
    given = {"MLFLOW_EXPERIMENT_NAME": "vision", "MLFLOW_RUN_ID": "abc", "MLFLOW_EXPERIMENT_ID": ""}
    assert Address.of_environment("x", given) == Address("x", "vision", None, "abc")
    assert Address.of_environment("x", {}) == Address("x")


def test_a_password_in_the_address_is_not_shown():
    assert Address("http://me:secret@mlflow.example/x").shown == "http://mlflow.example/x"
    assert Address("sqlite:////tmp/mlflow.db").shown == "sqlite:////tmp/mlflow.db"


def test_an_unsent_file_of_a_living_writer_is_its_own_affair(home):
    tracker = Tracker(home.outbox)
    tracker.metrics("run", 1, {"a": 1.0})
    assert count_unsent(home.outbox) == 1
    assert count_unsent(home.outbox, of_living=False) == 0
    tracker.close()
    assert count_unsent(home.outbox, of_living=False) == 1


def test_a_mark_that_a_full_disk_spoilt_sends_from_the_start(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"kind": "a", "run": "r"}\n', encoding="utf-8")
    path.with_suffix(".sent").write_text("", encoding="utf-8")
    assert OutboxReader(path).offset == 0


def test_what_was_refused_is_kept_with_the_reason_and_offered_again(home):
    home.outbox.mkdir()
    path = home.outbox / "1.jsonl"
    keep_refused(path, {"kind": "tag", "run": "r"}, "too long")
    assert offer_again(home.outbox) == 1
    (again,) = home.outbox.glob("*.jsonl")
    ((event, _),) = OutboxReader(again).read()
    assert event == {"kind": "tag", "run": "r", "reason": "too long"}
    assert offer_again(home.outbox) == 0


@pytest.mark.parametrize(
    ("error", "is_final"),
    [(ConnectionError("away"), False), (OSError(28, "full"), False), (KeyError("kind"), True)],
)
def test_only_what_was_looked_at_counts_as_refused(error, is_final):
    assert is_refusal(error) is is_final


def test_names_that_mlflow_would_refuse_are_made_readable():
    given = {"a/../b": 1, "/x y": 2, "50 %": 3, "é": 4, "..": 5}
    assert readable(given) == {"a/b": 1, "x y": 2, "50 _": 3, "é": 4, "unnamed": 5}


def test_a_long_description_is_cut_at_a_line_and_says_where_the_rest_is():
    text = "\n".join(f"line {n}" for n in range(2000))
    short = shortened(text)
    assert len(short) <= 5000
    assert short.endswith("report/report.md")
    assert "line 100\n" in short
    assert shortened("short") == "short"


def test_a_folder_is_told_file_by_file(home, tmp_path):
    (tmp_path / "report" / "viewer").mkdir(parents=True)
    (tmp_path / "report" / "a.md").write_text("a", encoding="utf-8")
    (tmp_path / "report" / "viewer" / "0.mjs").write_text("b", encoding="utf-8")
    tracker = Tracker(home.outbox)
    tracker.artifact("run", tmp_path / "report", folder="report")
    tracker.close()
    events = [json.loads(line) for line in tracker.path.read_text().splitlines()]
    assert [(e["folder"], e["path"].rpartition("/")[2]) for e in events] == [
        ("report", "a.md"),
        ("report/viewer", "0.mjs"),
    ]
