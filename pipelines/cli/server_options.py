"""The options of a command that may ask an OpenAI-compatible server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..config.server_settings import ServerSettings

BaseUrl = Annotated[
    str | None,
    typer.Option(help="Of the server of openai:MODEL, such as http://localhost:8000/v1."),
]
RequestsPerMinute = Annotated[
    float | None, typer.Option(min=0, help="The most that are sent to it.")
]
TokensPerMinute = Annotated[
    float | None, typer.Option(min=0, help="The most that it reads and writes.")
]
PriceInput = Annotated[float | None, typer.Option(min=0, help="Of a million tokens read.")]
PriceOutput = Annotated[float | None, typer.Option(min=0, help="Of a million tokens written.")]


def with_server(settings: ServerSettings, **given: float | str | None) -> ServerSettings:
    """Put what was given on the command line over what stands in flows.yaml."""
    known = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update=known)
