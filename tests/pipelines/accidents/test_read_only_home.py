"""With an unwritable CODEDANCE_DIR, commands that write name it, and all others work."""

from __future__ import annotations

import json
import os

import pytest
from codedance.pipelines.cli.episodes.terminal import picture_folder, show_picture
from codedance.pipelines.config.home import HomeError, check_writable, find_home

from ..makers import make_picture

WRITERS = (
    ("run", "--preset", "smoke"),
    ("curate", "--preset", "smoke"),
    ("sft",),
    ("grpo",),
    ("evaluate", "--policy", "oracle", "--limit", "1"),
    ("rescore",),
    ("report",),
    ("probe",),
    ("scale", "--policy", "oracle", "--limit", "1"),
    ("emergence",),
    ("runs",),
    ("view",),
    ("ui",),
    ("store", "list"),
    ("store", "show"),
    ("store", "export", "copy"),
    ("store", "prune"),
    ("store", "verify"),
    ("flows", "deploy"),
    ("flows", "serve"),
    ("mlflow", "sync"),
)


@pytest.fixture
def no_folder(tmp_path, monkeypatch):
    """A CODEDANCE_DIR below a file, where not even root can write."""
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "home"
    monkeypatch.setenv("CODEDANCE_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("arguments", WRITERS, ids=" ".join)
def test_every_command_that_writes_names_the_folder_and_exits_with_three(
    codedance, no_folder, arguments
):
    code, out, error = codedance(*arguments)
    assert (code, out) == (3, "")
    assert error.startswith(f"codedance: cannot write to {no_folder} (")
    assert "set CODEDANCE_DIR to a writable folder" in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_commands_without_disk_access_work(codedance, no_folder, tmp_path):
    make_picture().save(tmp_path / "photo.png")
    code, out, error = codedance("play", "--family", "bars", "--difficulty", "easy")
    assert (code, "right: the answer is" in out) == (0, True)
    assert "images are not saved" in error
    code, out, _ = codedance("ask", "photo.png", "Why?", "--policy", "oracle", "--json")
    assert (code, json.loads(out)["ending"]) == (0, "answered")
    assert codedance("plan", "--gpus", "1")[0] == 0
    assert codedance("--help")[0] == 0
    code, out, _ = codedance("doctor")
    assert code == 1
    assert "BAD  disk" in out
    assert "CODEDANCE_DIR" in " ".join(out.split())


def test_an_explicit_folder_for_images_must_exist(codedance, no_folder, tmp_path):
    make_picture().save(tmp_path / "photo.png")
    asked = ("ask", "photo.png", "Why?", "--policy", "oracle")
    code, _, error = codedance(*asked, "--save", str(no_folder))
    assert code == 3
    assert str(no_folder) in error
    assert "Traceback" not in error


def test_a_folder_on_a_read_only_file_system_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # as on a read-only mount
    with pytest.raises(HomeError, match=f"write to {tmp_path} .it is read-only.: set CODEDANCE_"):
        check_writable(tmp_path)
    assert picture_folder(tmp_path, is_asked_for=False) is None
    with pytest.raises(PermissionError):
        picture_folder(tmp_path, is_asked_for=True)


def test_naming_the_folder_creates_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("CODEDANCE_DIR", str(tmp_path / "home"))
    assert find_home(make=False).root == tmp_path / "home"
    assert list(tmp_path.iterdir()) == []
    assert find_home().root.is_dir()


def test_an_image_is_listed_even_if_it_is_not_stored(capsys, tmp_path):
    show_picture(make_picture(), None, "one.png")
    show_picture(make_picture(), tmp_path, "two.png")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["  image 24 by 16", f"  image 24 by 16: {tmp_path / 'two.png'}"]
    assert [path.name for path in tmp_path.iterdir()] == ["two.png"]
