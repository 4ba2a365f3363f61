"""Whatever shows or judges a run's checkpoint does so behind that run's own walls."""

from __future__ import annotations

import pytest
from codedance.pipelines.settings import SandboxSettings
from codedance.pipelines.store.schema import LineageRow
from codedance.pipelines.used_sandbox import sandbox_for
from codedance.sandbox import DEFAULT_LIBRARIES, SandboxError
from sqlalchemy import update

from .makers import make_picture
from .runs import first_run

STRICT = {
    "backend": "local",
    "floor": "full",
    "limits": {"wall_seconds": 3.0, "memory_mb": 300},
    "libraries": ["numpy"],
    "python": "/usr/bin/another-python",
}


@pytest.fixture
def checkpoint(finished):
    """The last checkpoint of a run that was begun with a sandbox of its own."""
    run = first_run(finished)
    changed = {**run.parameters, "sandbox": STRICT}
    change = update(LineageRow).where(LineageRow.id == run.id).values(parameters=changed)
    finished.store.database.run(lambda session: session.execute(change))
    return str(finished.home.stages / run.outputs["grpo"] / "final")


@pytest.fixture
def opened(monkeypatch):
    """What the first sandbox of a command is opened with; it then fails, for speed."""
    found = {}

    def open_none(backend, **given):
        found.update(given, backend=backend)
        raise SandboxError("not in this test")

    monkeypatch.setattr("codedance.pipelines.settings.open_sandbox", open_none)
    return found


def is_strict(found):
    limits = found["limits"]
    return (
        found["backend"],
        found["floor"],
        limits.wall_seconds,
        limits.memory_mb,
        found["libraries"],
        found["python"],
    ) == ("local", "full", 3.0, 300, ("numpy",), "/usr/bin/another-python")


def test_every_command_judges_a_checkpoint_in_its_runs_sandbox(
    codedance, finished, checkpoint, opened, tmp_path
):
    make_picture().save(tmp_path / "picture.png")
    commands = (
        ("probe", "latest", "--limit", "2"),
        ("probe", "--policy", checkpoint, "--limit", "2"),
        ("scale", "--policy", checkpoint, "--limit", "2"),
        ("play", "--policy", checkpoint),
        ("ask", str(tmp_path / "picture.png"), "How many?", "--policy", checkpoint),
        ("evaluate", "--policy", checkpoint, "--limit", "2"),
    )
    for words in commands:
        opened.clear()
        assert codedance(*words)[0] == 3, words
        assert is_strict(opened), words


def test_what_no_run_made_gets_the_sandbox_of_flows_yaml(codedance, finished, opened):
    with open("flows.yaml", "a", encoding="utf-8") as flows:
        flows.write("  quick:\n    sandbox: {floor: confined, limits: {memory_mb: 301}}\n")
    for words in (("play",), ("attack-reward",), ("scale", "--policy", "oracle", "--limit", "2")):
        opened.clear()
        assert codedance(*words)[0] == 3, words
        assert (opened["floor"], opened["limits"].memory_mb) == ("confined", 301), words


def test_a_backend_that_is_asked_for_leaves_the_other_settings(finished, checkpoint):
    found = sandbox_for(checkpoint, "docker")
    assert (found.backend, found.floor, found.limits.memory_mb) == ("docker", "full", 300)
    with pytest.raises(ValueError, match="no sandbox 'nowhere'"):
        sandbox_for(checkpoint, "nowhere")


def test_a_folder_that_no_run_made_is_nobodys(finished, tmp_path):
    (finished.home.stages / "left-behind" / "final").mkdir(parents=True)
    for folder in (tmp_path, finished.home.stages, finished.home.stages / "left-behind" / "final"):
        assert sandbox_for(str(folder)) == SandboxSettings(libraries=DEFAULT_LIBRARIES)
