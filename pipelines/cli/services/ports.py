"""Ports of the servers that a command starts, where the user's environment names none."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ...config.home import MLFLOW_PORT, PREFECT_PORT

PrefectPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help=f"Port of Prefect's server; else {PREFECT_PORT}."),
]
MlflowPort = Annotated[
    int | None, typer.Option(min=1, max=65535, help=f"Port of MLflow's UI; else {MLFLOW_PORT}.")
]


def choose_prefect_port(given: int | None) -> int:
    """Return the port of Prefect's server.

    Raises:
        BadParameter: A port is given, and PREFECT_API_URL names a server.
    """
    if given is not None and os.environ.get("PREFECT_API_URL"):
        raise _ignored("--prefect-port", "PREFECT_API_URL")
    return given or PREFECT_PORT


def choose_mlflow_port(given: int | None) -> int:
    """Return the port of MLflow's UI.

    Raises:
        BadParameter: A port is given, and MLFLOW_TRACKING_URI names a server.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if given is not None and uri.startswith(("http://", "https://")):
        raise _ignored("--mlflow-port", "MLFLOW_TRACKING_URI")
    return given or MLFLOW_PORT


def _ignored(option: str, variable: str) -> typer.BadParameter:
    words = f"{variable} names a server, so none is started there: leave one of them out"
    return typer.BadParameter(words, param_hint=option)
