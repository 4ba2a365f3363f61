"""Options of commands that can use an OpenAI-compatible server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from . import completion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...policies.interface import Policy
    from ..config.server_settings import ServerSettings

BaseUrl = Annotated[
    str | None,
    typer.Option(help="URL of openai:MODEL's server."),
]
RequestsPerMinute = Annotated[
    float | None, typer.Option(min=0, help="Rate limit of requests to the server.")
]
TokensPerMinute = Annotated[
    float | None, typer.Option(min=0, help="Rate limit of input and output tokens.")
]
PriceInput = Annotated[float | None, typer.Option(min=0, help="Price per million input tokens.")]
PriceOutput = Annotated[float | None, typer.Option(min=0, help="Price per million output tokens.")]
Notes = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder of openai:MODEL's model, without weights: its prompt and image size.",
        autocompletion=completion.policies,
    ),
]


def with_server(settings: ServerSettings, **given: float | str | None) -> ServerSettings:
    """Return the settings of flows.yaml with the options of the command line applied."""
    from ..config.server_settings import absolute_model

    known = {name: value for name, value in given.items() if value is not None}
    if isinstance(notes := known.get("notes"), str):
        known["notes"] = absolute_model(notes)
    return settings.model_copy(update=known)


def with_notes(settings: list[str] | None, notes: str | None) -> list[str] | None:
    """Return the values of ``--set`` with that of ``--notes``."""
    if notes is None:
        return settings
    return [*(settings or ()), f"server.notes={json.dumps(notes)}"]


def refuse_without_server(policy: str | None, given: Mapping[str, object], actual: str) -> None:
    """Reject options of a server for a policy that is not behind one.

    Args:
        policy: Policy; None where none is named.
        given: Value of each option by its parameter's name; None where it is not given.
        actual: What acts, in words.
    """
    from ...policies.inference.endpoint import OPENAI_PREFIX

    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if names and not (policy or "").startswith(OPENAI_PREFIX):
        raise typer.BadParameter(
            f"it is for a model behind a server, named by --policy openai:MODEL, not for {actual}",
            param_hint=", ".join(names),
        )


def load_named(policy: str, *, base_url: str | None = None, notes: str | None = None) -> Policy:
    """Load a policy; a model behind a server with its address and notes."""
    from ...policies import load_policy
    from ...policies.inference.endpoint import Endpoint

    if base_url is None and notes is None:
        return load_policy(policy)
    refuse_without_server(policy, {"base_url": base_url, "notes": notes}, policy)
    return load_policy(policy, endpoint=Endpoint(base_url=base_url, notes=notes))
