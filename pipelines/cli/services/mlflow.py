"""``codedance mlflow``: bring MLflow up to date with runs."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import completion
from ..exit_codes import FINDINGS

mlflow_app = typer.Typer(help="Bring MLflow up to date with runs.", no_args_is_help=True)
Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Runs; else latest.", autocompletion=completion.runs),
]


@mlflow_app.callback()
def _group() -> None:
    """Make ``sync`` a subcommand."""


@mlflow_app.command()
def sync(
    runs: Runs = None,
    every: Annotated[bool, typer.Option("--all", help="All runs of the store.")] = False,
) -> None:
    """Create the pages of runs in MLflow from their folders and the store.

    Can be repeated with the same result: runs started while MLflow was unavailable are added, and
    nothing is duplicated. A pipeline run includes its stages. The experiment is the one that the
    run was started with, unless MLFLOW_EXPERIMENT_NAME (or ..._ID) names another.
    """
    from ...config.home import find_home, prepare_environment
    from ...store.store import open_store
    from ...tracking.chosen_runs import chosen_runs
    from ..output import say

    if every and runs:
        raise typer.BadParameter("it means every run: name none beside it", param_hint="--all")
    home = find_home()
    prepare_environment(home)
    from ...tracking.mlflow.sync import sync_runs  # MLflow reads the environment

    with open_store(home) as store:
        chosen = chosen_runs(store.lineage, [] if every else runs or ["latest"])
        rejected = sync_runs(home, store, chosen, say)
    if rejected:
        raise typer.Exit(FINDINGS)
