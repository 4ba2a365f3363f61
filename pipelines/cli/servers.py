"""``codedance ui``: MLflow's and Prefect's own pages."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Annotated

import typer

Port = Annotated[int, typer.Option(min=1, max=65535, help="Where its page is.")]


def ui(mlflow_port: Port = 15000, prefect_port: Port = 14200) -> None:
    """Start MLflow's and Prefect's pages on this machine; Ctrl-C ends them."""
    from ..home import find_home, prepare_environment
    from ..processes import Service, running
    from .output import say

    home = find_home()
    os.environ["PREFECT_SERVER_UI_API_URL"] = f"http://127.0.0.1:{prefect_port}/api"
    prepare_environment(home)
    logs = home.root / "logs"
    mlflow = Service("MLflow", _mlflow_command(home.mlflow_uri, mlflow_port), logs / "mlflow.log")
    prefect = Service("Prefect", _prefect_command(prefect_port), logs / "prefect.log")
    with running(mlflow, prefect):
        say(f"MLflow   http://127.0.0.1:{mlflow_port}")
        say(f"Prefect  http://127.0.0.1:{prefect_port}")
        say("Ctrl-C ends both")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def _mlflow_command(uri: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]


def _prefect_command(port: int) -> list[str]:
    command = [sys.executable, "-m", "prefect", "server", "start"]
    return [*command, "--host", "127.0.0.1", "--port", str(port)]
