"""Policies that a stage asks, a server's among them, and what asking took."""

from __future__ import annotations

from ...policies.inference.endpoint import Endpoint, Usage
from ...policies.interface import Policy
from ..config.server_settings import ServerSettings
from ..runs.context import StageContext


def open_policy(source: str, server: ServerSettings | None = None) -> Policy:
    """Load a policy by name, folder, hub id, or ``openai:MODEL`` of the server."""
    from ...policies import load_policy

    settings = server or ServerSettings()
    return load_policy(source, endpoint=Endpoint(**settings.model_dump()))


def tell_usage(context: StageContext, name: str, policy: Policy) -> None:
    """Print and log what a server was asked for; nothing for policies of this machine."""
    usage: Usage | None = getattr(policy, "usage", None)
    if usage is None:
        return
    context.progress.say(f"{name}: {usage}")
    figures = {f"{name}/server/{figure}": value for figure, value in usage.figures().items()}
    context.tracker.metrics(context.run.id, 0, figures)
