from pathlib import Path

import pytest
import torch
from codedance.policies.training.training_state import (
    folder_digest,
    load_state,
    publish,
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
