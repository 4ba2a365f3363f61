"""Parts of the tool that need no virtual machine: its file system, its log."""

import io
import json
import sys

import pytest

from . import __main__ as command
from .image import _add, _end
from .log import Log, describe
from .machine import Machine
from .table import KERNELS

ABOUT = {"place": "full", "user": "root", "release": "6.1.0", "abi": 2}
HELD = {**ABOUT, "number": "1", "result": "held", "detail": "ok: held"}
ESCAPED = {**ABOUT, "number": "18", "result": "escaped", "detail": "the zygote died"}
LONG = {**ESCAPED, "detail": "a\n" * 900}
ENDS = {**ABOUT, "ends": True}


def log_of(*said):
    return Log(KERNELS["6.1"], "linux-image 6.1.1", "abc", list(said))


def test_an_archive_has_aligned_entries_with_their_lengths():
    file = io.BytesIO()
    _add(file, "opt/a", 0o100644, b"12345")
    _end(file)
    data = file.getvalue()
    assert data[:6] == b"070701"
    assert [int(data[6 + 8 * n : 14 + 8 * n], 16) for n in (1, 6, 11)] == [0o100644, 5, 6]
    assert data[110:116] == b"opt/a\0"
    assert data[116:124] == b"12345\0\0\0"
    assert data[124:130] == b"070701"
    assert len(data) % 4 == 0


def test_only_what_was_held_to_the_end_is_held():
    assert log_of(HELD, ENDS).is_held(["full:root"])
    assert not log_of(HELD, ESCAPED, ENDS).is_held(["full:root"])
    assert not log_of(HELD).is_held(["full:root"])
    assert not log_of(HELD, ENDS).is_held(["full:root", "confined:root"])


def test_a_level_that_is_refused_is_told_from_one_that_holds():
    log = log_of({**ABOUT, "refused": "no landlock"}, ENDS)
    assert log.is_held(["full:root"])
    assert "full, root: refused\n  refused: no landlock" in log.text()


def test_a_detail_is_one_short_line():
    (row,) = [row for row in log_of(LONG, ENDS).text().splitlines() if "18" in row]
    assert row == f"  18 escaped: {'a ' * 80}…"


def test_results_replace_those_of_the_same_kernel_and_label(tmp_path):
    path = tmp_path / "log.txt"
    log_of(HELD, ENDS).write(path, "before")
    log_of(HELD, ESCAPED, ENDS).write(path, "")
    log_of(HELD, HELD, ENDS).write(path, "before")
    parts = path.read_text().split("== ")[1:]
    assert [part.splitlines()[0] for part in parts] == ["6.1 before", "6.1"]
    assert "full, root: 2 held of 2" in parts[0]
    assert "full, root: 1 held of 2\n  18 escaped: the zygote died" in parts[1]
    assert "landlock ABI 2" in parts[1]


def test_verdicts_are_read_as_they_come(tmp_path, monkeypatch):
    """A program in place of qemu writes verdicts, one of them not to its end."""
    fake = tmp_path / "qemu-system-x86_64"
    said = json.dumps(HELD)
    fake.write_text(f"#!{sys.executable}\nimport sys\npath = sys.argv[-1].removeprefix('file:')\n")
    with fake.open("a") as file:
        file.write(f"open(path, 'w').write('''{said}\\r\\n{said}\\r\\n{said[:9]}''')\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    machine = Machine(KERNELS["6.1"], fake, fake, tmp_path / "console")
    lines = list(machine.run([("full", "root")], ["1"]))
    assert lines == [HELD, HELD]
    assert describe(lines[0]) == "full, root: 1 held: ok: held\n"


def test_what_is_missing_is_said_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["kernels", "6.1", "--folder", str(tmp_path)])
    assert command.main() == 2
    assert capsys.readouterr().out.startswith("not run: kernels are downloaded by apt-get")


def test_a_machine_that_does_not_end_is_ended(tmp_path, monkeypatch):
    fake = tmp_path / "qemu-system-x86_64"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    machine = Machine(KERNELS["6.1"], fake, fake, tmp_path / "console", timeout_seconds=0.1)
    with pytest.raises(TimeoutError, match="no end after"):
        list(machine.run([("full", "root")]))
