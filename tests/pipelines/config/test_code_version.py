"""Files that count as the code of a result."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from codedance.pipelines.config.code_version import ROOMS, ROOT, deciding_files, tree_digest

DECIDING = (
    "sandbox/worker/limits.py",
    "envs/grading.py",
    "envs/suites/nano/sources.npz",
    "policies/seeds.py",
    "policies/checkpoints/nano/model.safetensors",
    "policies/checkpoints/nano/chat_template.jinja",
    "pipelines/stages/seeding.py",
    "pipelines/config/settings.py",
    "pipelines/stages/draws.py",
    "sandbox/docker/image/seccomp.json",
)
OTHER = (
    "docs/index.md",
    "tests/pipelines/test_x.py",
    "examples/one.py",
    "flows.yaml",
    "pipelines/flows.yaml",
    "pipelines/viewer/assets/main.js",
    "policies/checkpoints/nano/README.md",
    "policies/checkpoints/mine/model.safetensors",
    "envs/__pycache__/grading.cpython-311.pyc",
)


@pytest.fixture
def tree(tmp_path):
    for name in (*DECIDING, *OTHER):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("as it was")
    return tmp_path


def test_every_file_that_affects_results_is_in_the_code_version(tree):
    seen = {tree_digest(tree)}
    for name in DECIDING:
        (tree / name).write_text("changed")
        seen.add(tree_digest(tree))
    assert len(seen) == len(DECIDING) + 1
    (tree / DECIDING[0]).rename(tree / "sandbox" / "other.py")
    assert tree_digest(tree) not in seen


def test_documents_tests_and_presentation_do_not_change_the_code_version(tree):
    before = tree_digest(tree)
    for name in OTHER:
        (tree / name).write_text("changed")
    assert tree_digest(tree) == before


def test_all_python_of_the_rooms_counts_and_no_generated_file():
    found = {path.relative_to(ROOT).as_posix() for path in deciding_files(ROOT)}
    wanted = {p.relative_to(ROOT).as_posix() for room in ROOMS for p in (ROOT / room).rglob("*.py")}
    assert wanted < found
    assert "envs/suites/nano/sources.npz" in found
    assert not [name for name in found if "__pycache__" in name or name.endswith((".md", ".js"))]


def test_an_installed_copy_has_the_version_of_its_checkout(tmp_path):
    """A wheel contains the packages of the rooms, compiled files, and nothing else."""
    for path in deciding_files(ROOT):
        copy = tmp_path / "codedance" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    flows = tmp_path / "codedance" / "pipelines" / "flows.yaml"
    shutil.copyfile(Path(ROOT / "flows.yaml"), flows)
    assert tree_digest(tmp_path / "codedance") == tree_digest(ROOT)
