"""``codedance metrics``: send the metrics of past runs to W&B, TensorBoard or trackio."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, cast

import typer

from .. import completion

if TYPE_CHECKING:  # it imports pydantic
    from ...config.server_settings import SinkName


class Tool(StrEnum):
    """Tools that show metrics, as `SinkName` lists them."""

    TENSORBOARD = "tensorboard"
    TRACKIO = "trackio"
    WANDB = "wandb"


Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Runs; else latest.", autocompletion=completion.runs),
]


def metrics(
    to: Annotated[list[Tool], typer.Option("--to", help="Tool; can be repeated.")],
    runs: Runs = None,
    every: Annotated[bool, typer.Option("--all", help="All runs of the store.")] = False,
) -> None:
    """Send the metrics of runs to W&B, TensorBoard or trackio.

    A run that a tool has in part is completed: what was sent before is not sent again. A pipeline
    run includes its stages. Runs send their metrics themselves where tracking.also in flows.yaml
    names the tools.
    """
    from ...config.home import find_home, prepare_environment
    from ...store.store import open_store
    from ...tracking.chosen_runs import chosen_runs
    from ...tracking.sinks.sending import send_runs
    from ...tracking.sinks.sink import check_sinks
    from ..output import say

    if every and runs:
        raise typer.BadParameter("it means every run: name none beside it", param_hint="--all")
    names = cast("list[SinkName]", [one.value for one in dict.fromkeys(to)])
    check_sinks(names)
    home = find_home()
    prepare_environment(home)
    with open_store(home) as store:
        chosen = chosen_runs(store.lineage, [] if every else runs or ["latest"])
        send_runs(home, store.lineage, chosen, names, say)
