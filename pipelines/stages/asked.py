"""Policies of a stage, including those behind a model server, and their usage."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from ...policies.inference.endpoint import Endpoint
from ...policies.interface import Policy
from ..config.server_settings import ServerSettings
from ..runs.context import StageContext
from ..serving.engine.policy import engine_policy, is_served


class _Usage(Protocol):
    """Usage of servers, which prints in one line."""

    def figures(self) -> Mapping[str, float]:
        """Return all figures by name."""
        ...


@contextmanager
def opened_policy(context: StageContext, source: str) -> Generator[Policy]:
    """Load a policy as `open_policy` does, with the engine that the preset names."""
    settings = context.preset.rollout
    if not is_served(source, settings):
        yield open_policy(source, context.preset.server)
        return
    with engine_policy(
        source,
        settings,
        log=context.folder / "vllm.log",
        say=context.progress.say,
        check=context.stop.check,
    ) as policy:
        yield policy


def open_policy(source: str, server: ServerSettings | None = None) -> Policy:
    """Load a policy by name, folder, hub id, or ``openai:MODEL`` for a model of the server."""
    from ...policies import load_policy

    settings = server or ServerSettings()
    return load_policy(source, endpoint=Endpoint(**settings.model_dump()))


def notes_state(server: ServerSettings) -> dict[str, Any]:
    """Return the notes of a server's model and the state of their files; empty for none."""
    from ...policies.inference.model_files import model_state

    if server.notes is None:
        return {}
    return {"notes": server.notes, "state of notes": model_state(server.notes)}


def report_usage(context: StageContext, name: str, policy: Policy) -> None:
    """Print and log the usage of model servers; do nothing for local policies."""
    usage: _Usage | None = getattr(policy, "usage", None)
    if usage is None:
        return
    context.progress.say(f"{name}: {usage}")
    figures = {f"{name}/server/{figure}": value for figure, value in usage.figures().items()}
    context.tracker.metrics(context.run.id, 0, figures)
