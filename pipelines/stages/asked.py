"""Policies of a stage, including those behind a model server, and their usage."""

from __future__ import annotations

from ...policies.inference.endpoint import Endpoint, Usage
from ...policies.interface import Policy
from ..config.server_settings import ServerSettings
from ..runs.context import StageContext


def open_policy(source: str, server: ServerSettings | None = None) -> Policy:
    """Load a policy by name, folder, hub id, or ``openai:MODEL`` for a model of the server."""
    from ...policies import load_policy

    settings = server or ServerSettings()
    return load_policy(source, endpoint=Endpoint(**settings.model_dump()))


def report_usage(context: StageContext, name: str, policy: Policy) -> None:
    """Print and log the usage of a model server; do nothing for local policies."""
    usage: Usage | None = getattr(policy, "usage", None)
    if usage is None:
        return
    context.progress.say(f"{name}: {usage}")
    figures = {f"{name}/server/{figure}": value for figure, value in usage.figures().items()}
    context.tracker.metrics(context.run.id, 0, figures)
