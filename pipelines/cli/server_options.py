"""Options of commands that can use an OpenAI-compatible server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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


def with_server(settings: ServerSettings, **given: float | str | None) -> ServerSettings:
    """Return the settings of flows.yaml with the options of the command line applied."""
    known = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update=known)
