"""``codedance flows``: serve the deployments of flows.yaml, or deploy them to a Prefect server."""

from __future__ import annotations

from typing import Annotated

import typer

from .ports import MlflowPort, PrefectPort, choose_mlflow_port, choose_prefect_port

flows_app = typer.Typer(
    help="Run the flows by schedule or from Prefect's UI.", no_args_is_help=True
)


@flows_app.command()
def serve(
    prefect_port: PrefectPort = None,
    mlflow_port: MlflowPort = None,
    mlflow: Annotated[bool, typer.Option(help="Serve MLflow's UI too.")] = True,
    at_once: Annotated[int, typer.Option(min=1, help="Concurrent flow runs.")] = 2,
) -> None:
    """Start Prefect's server and a worker, and deploy flows.yaml.

    Runs start by schedule, from Prefect's UI or by `prefect deployment run`. With PREFECT_API_URL
    set, that server is used and only the worker is started. Ctrl-C stops everything; active runs
    can be resumed. Runs outlive a worker that is killed, and this command if it is killed.
    """
    from ...config.home import find_home
    from ..output import say
    from .dev_server import DevServer, serve_flows

    if mlflow_port is not None and not mlflow:
        raise typer.BadParameter("--no-mlflow serves no UI there", param_hint="--mlflow-port")
    port, pages = choose_prefect_port(prefect_port), choose_mlflow_port(mlflow_port)
    serve_flows(DevServer(find_home(), port, pages if mlflow else None, at_once), say)


@flows_app.command()
def deploy() -> None:
    """Register the deployments of flows.yaml with the Prefect server in PREFECT_API_URL.

    Like `prefect deploy --all --prefect-file flows.yaml`, and also creates the work pool, and the
    automations that mark runs as crashed that died with their worker.
    """
    from ....policies.inference.server_words import without_credentials
    from ...config.flows_file import find_flows_file, load_flows_file
    from ...config.home import find_home, prepare_environment
    from ..output import say

    home = find_home()
    prepare_environment(home)
    path = find_flows_file()
    load_flows_file(path)
    from prefect.settings import PREFECT_API_URL

    from ...flows.deploying import deploy_all

    pools = deploy_all(path)
    if address := PREFECT_API_URL.value():
        say(f"deployed {path} with {without_credentials(address)}")
    else:
        say(f"deployed {path} into {home.prefect}, since PREFECT_API_URL names no server;")
        say("`codedance flows serve` is a server and a worker for it")
    for pool in pools:
        say(f"a worker: prefect worker start --pool {pool}")
