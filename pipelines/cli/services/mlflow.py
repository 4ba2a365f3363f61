"""``codedance mlflow``: events that have not been sent to MLflow yet."""

from __future__ import annotations

from typing import Annotated

import typer

from ..exit_codes import FINDINGS

mlflow_app = typer.Typer(help="Send waiting events to MLflow.", no_args_is_help=True)
Refused = Annotated[bool, typer.Option("--refused", help="Retry events that MLflow rejected.")]


@mlflow_app.callback()
def _group() -> None:
    """Make ``send`` a subcommand."""


@mlflow_app.command()
def send(refused: Refused = False) -> None:
    """Send the events in the outbox, of runs that ended while MLflow was unreachable.

    Each run goes to the server and experiment that it was recorded for. An active run
    sends its own events. Sending twice duplicates nothing.
    """
    from ...config.home import find_home, prepare_environment
    from ...store.store import open_store
    from ...tracking.mlflow.sender import OutboxSending
    from ...tracking.outbox import count_unsent, offer_again
    from ..output import say

    home = find_home()
    prepare_environment(home)
    if refused:
        say(f"{offer_again(home.outbox)} rejected events are sent once more")
    waiting = count_unsent(home.outbox, of_living=False)
    if not waiting:
        say("the outbox is empty: everything has been sent to MLflow")
        return
    with open_store(home) as store:
        OutboxSending(home, store, say).drain(at_once=True)
    left = count_unsent(home.outbox, of_living=False)
    say(f"{waiting - left:,} of {waiting:,} events sent")
    if left:
        say(f"{left:,} wait in {home.outbox}")
        raise typer.Exit(FINDINGS)
