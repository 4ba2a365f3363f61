"""``codedance serve model``: a policy behind an OpenAI-compatible API."""

from __future__ import annotations

import contextlib
import signal
from typing import Annotated

import typer

from .. import completion

serve_app = typer.Typer(help="Serve a model over HTTP.", no_args_is_help=True)


@serve_app.callback()
def serve() -> None:
    """Serve a model over HTTP."""


@serve_app.command()
def model(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY",
            help="nano, oracle, random, a checkpoint folder or a hub id.",
            autocompletion=completion.policies,
        ),
    ] = "nano",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="CODEDANCE_API_KEY", help="Key that requests must send.")
    ] = None,
) -> None:
    """Serve chat completions with an OpenAI-compatible API; Ctrl-C stops it."""
    from ....policies import load_policy
    from ...serving.model_server import ModelServer
    from ..output import say

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    loaded = load_policy(policy)
    with (
        contextlib.suppress(KeyboardInterrupt),
        ModelServer(loaded, host=host, port=port, api_key=api_key) as server,
    ):
        say(f"{server.name} at {server.url}")
        say("Ctrl-C stops it")
        signal.pause()
