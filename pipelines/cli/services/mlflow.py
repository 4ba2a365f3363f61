"""``codedance mlflow``: what MLflow has not been told yet."""

from __future__ import annotations

from typing import Annotated

import typer

from ..exit_codes import FINDINGS

mlflow_app = typer.Typer(help="Send what MLflow has not been told yet.", no_args_is_help=True)
Refused = Annotated[
    bool, typer.Option("--refused", help="Offer once more what MLflow did not take.")
]


@mlflow_app.callback()
def _group() -> None:
    """Keep ``send`` a word of its own."""


@mlflow_app.command()
def send(refused: Refused = False) -> None:
    """Send what waits in the spool: a run ended while MLflow was away.

    Each run goes to the server and experiment that it was for. A run under
    way sends what it has itself. Sending twice doubles nothing.
    """
    from ...config.home import find_home, prepare_environment
    from ...store.store import open_store
    from ...tracking.mlflow.sender import OutboxSending
    from ...tracking.outbox import count_unsent, offer_again
    from ..output import say

    home = find_home()
    prepare_environment(home)
    if refused:
        say(f"{offer_again(home.outbox)} events that were refused are offered once more")
    waiting = count_unsent(home.outbox, of_living=False)
    if not waiting:
        say("nothing waits: MLflow has been told everything")
        return
    with open_store(home) as store:
        OutboxSending(home, store, say).drain(at_once=True)
    left = count_unsent(home.outbox, of_living=False)
    say(f"{waiting - left:,} of {waiting:,} events sent")
    if left:
        say(f"{left:,} wait in {home.outbox}")
        raise typer.Exit(FINDINGS)
