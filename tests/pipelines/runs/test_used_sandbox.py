"""Commands that use a run's checkpoint run its code in that run's own sandbox."""

from __future__ import annotations

import pytest
from codedance.pipelines.config.sections.sandbox_settings import SandboxSettings
from codedance.pipelines.config.yaml_file import SettingsError
from codedance.pipelines.runs.used_sandbox import sandbox_for
from codedance.pipelines.store.lineage import PIPELINE, StageRequest
from codedance.pipelines.store.maintenance.pruning import choose, prune
from codedance.pipelines.store.schema import LineageRow
from codedance.sandbox import SandboxError
from codedance.sandbox.types import DEFAULT_LIBRARIES
from sqlalchemy import delete, update

from ..makers import make_picture
from ..tiny_runs import first_run

STRICT = {
    "backend": "local",
    "floor": "full",
    "limits": {"wall_seconds": 3.0, "memory_mb": 300},
    "libraries": ["numpy"],
    "python": "/usr/bin/another-python",
}


@pytest.fixture
def checkpoint(finished):
    """The last checkpoint of a run with its own sandbox settings."""
    return checkpoint_made_in(finished, STRICT)


def checkpoint_made_in(session, sandbox):
    run = first_run(session)
    changed = {**run.parameters, "sandbox": sandbox}
    change = update(LineageRow).where(LineageRow.id == run.id).values(parameters=changed)
    session.store.database.run(lambda session: session.execute(change))
    return str(session.home.stages / run.outputs["grpo"] / "final")


def read_by(session, sandbox):
    """Start a pipeline run that reads the first one's stages, with its own sandbox settings."""
    first, lineage = first_run(session), session.store.lineage
    parameters = {**first.parameters, "sandbox": sandbox}
    reader = lineage.begin(StageRequest(PIPELINE, "smoke", parameters, {}, first.seed, "later"))
    lineage.mark(reader.id, "finished", outputs=first.outputs)


def prune_first(session):
    """Remove the pipeline run of the checkpoint, and data that no other run reads."""
    prune(session.store, choose(session.store.lineage, [first_run(session)]), is_dry=False)


@pytest.fixture
def opened(monkeypatch):
    """Arguments of the first sandbox of a command, which then fails to save time."""
    found = {}

    def open_none(backend, **given):
        found.update(given, backend=backend)
        raise SandboxError("not in this test")

    settings = "codedance.pipelines.config.sections.sandbox_settings"
    monkeypatch.setattr(f"{settings}.open_sandbox", open_none)
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


def test_every_command_uses_a_checkpoint_in_its_runs_sandbox(
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


def test_models_without_a_run_get_the_sandbox_of_flows_yaml(codedance, finished, opened):
    with open("flows.yaml", "a", encoding="utf-8") as flows:
        flows.write("  quick:\n    sandbox: {floor: confined, limits: {memory_mb: 301}}\n")
    for words in (("play",), ("attack-reward",), ("scale", "--policy", "oracle", "--limit", "2")):
        opened.clear()
        assert codedance(*words)[0] == 3, words
        assert (opened["floor"], opened["limits"].memory_mb) == ("confined", 301), words


SETTING = ("--set", "sandbox.limits.memory_mb=302")


def commands_with_a_sandbox(tmp_path):
    make_picture().save(tmp_path / "picture.png")
    return (
        ("play",),
        ("ask", str(tmp_path / "picture.png"), "How many?", "--policy", "oracle"),
        ("attack-reward",),
        ("scale", "--policy", "oracle", "--limit", "2"),
        ("probe", "--policy", "oracle", "--limit", "2"),
        ("probe", "latest", "--limit", "2"),
    )


def test_every_command_with_a_sandbox_accepts_its_settings(codedance, finished, opened, tmp_path):
    for words in commands_with_a_sandbox(tmp_path):
        opened.clear()
        assert codedance(*words, *SETTING)[0] == 3, words
        assert opened["limits"].memory_mb == 302, words


def test_a_setting_that_such_a_command_does_not_read_is_rejected(
    codedance, finished, opened, tmp_path
):
    for words in commands_with_a_sandbox(tmp_path):
        code, _, error = codedance(*words, "--set", "grpo.steps=3")
        assert code == 2, words
        assert "--set grpo.steps: this command reads only the sandbox's settings" in error
        code, _, error = codedance(*words, "--set", "sandbox.floor=cellar")
        assert (code, "--set sandbox.floor: " in error) == (2, True), words
    twice = ("--sandbox", "local", "--set", "sandbox.backend=docker")
    for name in ("play", "scale", "attack-reward"):
        code, _, error = codedance(name, *twice)
        assert (code, "--sandbox is given too" in error) == (2, True), name
    assert opened == {}


def test_a_requested_backend_keeps_the_other_settings(finished, checkpoint):
    found = sandbox_for(checkpoint, "docker")
    assert (found.backend, found.floor, found.limits.memory_mb) == ("docker", "full", 300)
    with pytest.raises(ValueError, match="no sandbox 'nowhere'"):
        sandbox_for(checkpoint, "nowhere")


def test_a_folder_without_a_run_belongs_to_none(finished, tmp_path):
    for folder in (tmp_path, finished.home.stages):
        assert sandbox_for(str(folder)) == SandboxSettings(libraries=DEFAULT_LIBRARIES)


def test_a_checkpoint_of_a_pruned_run_keeps_the_sandbox_of_the_run_that_reads_it(finished):
    checkpoint = checkpoint_made_in(finished, {"backend": "docker", "floor": "full"})
    read_by(finished, {"backend": "docker", "floor": "full", "image": "mine"})
    assert sandbox_for(checkpoint).image is None
    prune_first(finished)
    found = sandbox_for(checkpoint)
    assert (found.backend, found.floor, found.image) == ("docker", "full", "mine")
    assert sandbox_for(checkpoint, "local").backend == "local"


@pytest.mark.parametrize("backends", [("docker", "local"), ("local", "docker")])
def test_the_reader_with_the_strongest_backend_counts(finished, backends):
    checkpoint = checkpoint_made_in(finished, {"backend": "docker"})
    for backend in (*backends, "unsafe-subprocess"):
        read_by(finished, {"backend": backend})
    prune_first(finished)
    assert sandbox_for(checkpoint).backend == "docker"


def test_a_missing_parent_counts_as_none(finished):
    checkpoint = checkpoint_made_in(finished, {"backend": "local"})
    read_by(finished, {"backend": "docker"})
    gone = delete(LineageRow).where(LineageRow.id == first_run(finished).id)
    finished.store.database.run(lambda session: session.execute(gone))
    assert sandbox_for(checkpoint).backend == "docker"


def test_a_checkpoint_without_a_pipeline_run_needs_a_backend_by_name(codedance, finished, opened):
    checkpoint = checkpoint_made_in(finished, {"backend": "docker"})
    stage_run = first_run(finished).outputs["grpo"]
    lost = finished.home.stages / "left-behind" / "final"
    lost.mkdir(parents=True)
    for change in (
        update(LineageRow).where(LineageRow.parent.is_not(None)).values(parent=None),
        delete(LineageRow).where(LineageRow.stage == PIPELINE),
    ):
        finished.store.database.run(lambda session, change=change: session.execute(change))
    for policy, name in ((checkpoint, stage_run), (str(lost), "left-behind")):
        with pytest.raises(SettingsError, match=f"made or reads {name} .*--sandbox docker"):
            sandbox_for(policy)
        assert sandbox_for(policy, "docker").backend == "docker"
    code, _, said = codedance("play", "--policy", checkpoint)
    assert (code, opened) == (2, {})
    assert "the sandbox of" in said
    assert codedance("play", "--policy", checkpoint, "--sandbox", "docker")[0] == 3
    assert opened["backend"] == "docker"
