"""Files of JSON lines: nothing is lost on a full disk, and a line cut short costs only itself."""

from __future__ import annotations

import resource
import signal
from contextlib import contextmanager

import pytest
from codedance.pipelines.tracking.lines import LineReader, LineWriter, append_line, read_lines
from codedance.pipelines.tracking.metrics_file import append_metrics, read_metrics


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
    writer, path = LineWriter(), tmp_path / "folder" / "lines"
    writer.append(path, {"n": 1})
    with full_disk(10):
        writer.append(path, {"n": 2, "long": "x" * 40})
        writer.append(path, {"n": 3})
        assert writer.waiting == 2
    writer.append(path, {"n": 4})
    assert writer.waiting == 0
    assert [line["n"] for line in read_lines(path)] == [1, 2, 3, 4]


def test_metrics_wait_for_room(tmp_path):
    writer = LineWriter()
    with full_disk(100):
        for step in range(1, 9):
            append_metrics(writer, tmp_path, step, {"loss": 1.0 / step})
    append_metrics(writer, tmp_path, 9, {"loss": 0.0})
    assert [step for step, _ in read_metrics(tmp_path)["loss"]] == list(range(1, 10))


def test_complete_raises_while_lines_wait(tmp_path):
    writer = LineWriter()
    with full_disk(10):
        writer.append(tmp_path / "lines", {"long": "x" * 40})
        with pytest.raises(OSError, match="File too large"):
            writer.complete()
    writer.complete()
    assert read_lines(tmp_path / "lines") == [{"long": "x" * 40}]


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        LineWriter().append(tmp_path / "file" / "lines", {"n": 1})


def test_a_reader_returns_whole_new_lines(tmp_path):
    path = tmp_path / "lines"
    reader = LineReader(path)
    assert reader.read() == []
    path.write_text('{"n": 1}\nno json\n[2]\n{"n": 3}\n{"n": ')
    assert reader.read() == [{"n": 1}, {"n": 3}]
    assert reader.read() == []
    with path.open("a") as file:
        file.write("4}\n")
    assert reader.read() == [{"n": 4}]


def test_a_line_that_a_kill_cut_short_costs_only_itself(tmp_path):
    path = tmp_path / "lines"
    path.write_text('{"n": 1}\n{"n": 2')
    append_line(path, {"n": 3})
    assert list(read_lines(path)) == [{"n": 1}, {"n": 3}]


def test_nothing_is_appended_once_the_guard_refuses(tmp_path):
    writer = LineWriter()
    writer.append(tmp_path / "a.jsonl", {"step": 1})
    writer.guard = refuse
    with pytest.raises(ConnectionError):
        writer.append(tmp_path / "a.jsonl", {"step": 2})
    assert read_lines(tmp_path / "a.jsonl") == [{"step": 1}]


def refuse():
    raise ConnectionError("another process has the run now")
