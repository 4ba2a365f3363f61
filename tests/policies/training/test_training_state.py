from pathlib import Path

import pytest
import torch
from codedance.policies.training.distributed.processes import World
from codedance.policies.training.training_state import (
    end_step,
    folder_digest,
    load_state,
    publish,
    save_final,
    save_state,
)


def test_state_is_restored_unchanged(tmp_path: Path):
    save_state(tmp_path / "state", 7, {"w": torch.arange(3), "n": 2}, fingerprint="r")
    found = load_state(tmp_path / "state", fingerprint="r")
    assert found is not None
    assert found.step == 7
    assert torch.equal(found.values["w"], torch.arange(3))
    assert found.values["n"] == 2


def test_a_missing_state_is_none(tmp_path: Path):
    assert load_state(tmp_path / "state", fingerprint="r") is None


def test_state_of_another_run_is_rejected(tmp_path: Path):
    save_state(tmp_path, 1, {}, fingerprint="one")
    with pytest.raises(ValueError, match="another run"):
        load_state(tmp_path, fingerprint="two")


def test_a_partially_written_state_keeps_the_old_one(tmp_path: Path):
    save_state(tmp_path, 1, {}, fingerprint="r")
    (tmp_path / "state.pt.new").write_bytes(b"the process died here")
    found = load_state(tmp_path, fingerprint="r")
    assert found is not None
    assert found.step == 1


def refuse():
    raise ConnectionError("another process has the run now")


def test_the_guard_is_asked_before_a_state_is_replaced(tmp_path: Path):
    save_state(tmp_path, 1, {}, fingerprint="r")
    with pytest.raises(ConnectionError):
        save_state(tmp_path, 2, {}, fingerprint="r", guard=refuse)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    found = load_state(tmp_path, fingerprint="r")
    assert found is not None
    assert found.step == 1


def test_the_guard_is_asked_before_a_model_is_published(tmp_path: Path):
    save_final(tmp_path, lambda build: (build / "model").write_text("new"), World())
    with pytest.raises(ConnectionError):
        save_final(tmp_path, lambda build: (build / "model").write_text("late"), World(), refuse)
    assert (tmp_path / "final" / "model").read_text() == "new"


def test_a_state_that_another_process_writes_is_left_to_it(tmp_path: Path):
    """Both used one temporary file, and one renamed what the other had half written."""
    other = tmp_path / "state.pt.elsewhere-7.new"
    other.write_bytes(b"half")
    save_state(tmp_path, 1, {}, fingerprint="r")
    assert other.read_bytes() == b"half"
    found = load_state(tmp_path, fingerprint="r")
    assert found is not None
    assert found.step == 1
    assert not other.exists()  # the one who resumes holds the run: nobody else's file counts


def test_a_damaged_state_is_rejected_with_the_remedy(tmp_path: Path):
    (tmp_path / "state.pt").touch()
    with pytest.raises(ValueError, match=r"state\.pt cannot be read \(EOFError\).* remove"):
        load_state(tmp_path, fingerprint="r")


def test_an_error_of_a_callback_ends_the_step():
    with pytest.raises(ConnectionError):
        end_step(World(), 1, {}, lambda step, metrics: refuse(), None)
    assert end_step(World(), 1, {}, None, lambda: True)
    assert not end_step(World(), 1, {}, None, None)


def test_publishing_replaces_an_older_folder(tmp_path: Path):
    for text in ("old", "new"):
        build = tmp_path / "build"
        build.mkdir()
        (build / "file").write_text(text)
        publish(build, tmp_path / "final")
    assert (tmp_path / "final" / "file").read_text() == "new"
    assert not (tmp_path / "build").exists()


def test_digest_distinguishes_weights(tmp_path: Path):
    digests: set[bytes] = set()
    for content in (b"a", b"b", b"a"):
        (tmp_path / "model.safetensors").write_bytes(content)
        digests.add(folder_digest(tmp_path))
    assert len(digests) == 2
