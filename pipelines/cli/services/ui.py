"""``codedance ui``: MLflow's and Prefect's UIs, those that run already and those it starts."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .ports import MlflowPort, PrefectPort, choose_mlflow_port, choose_prefect_port

if TYPE_CHECKING:
    from ...config.home import Home
    from ...runs.processes import Service

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Pages:
    """The UI of one program.

    Attributes:
        name: Name of the program.
        address: Address of the UI.
        health: Address that answers when the UI is ready.
        start: Service to start; None if it runs already, or is not ours.
        note: Reason why nothing is started.
    """

    name: str
    address: str
    health: str
    start: Service | None = None
    note: str = ""

    @property
    def line(self) -> str:
        """Line to print for the user."""
        from ....policies.inference.server_words import without_credentials

        address = without_credentials(self.address)
        return f"{self.name:<8} {address}{self.note and f'  ({self.note})'}"


def ui(mlflow_port: MlflowPort = None, prefect_port: PrefectPort = None) -> None:
    """Start MLflow's and Prefect's UIs on this machine, unless they run already.

    Servers that MLFLOW_TRACKING_URI and PREFECT_API_URL name are shown and not started. Ctrl-C
    stops what was started.
    """
    from ...config.home import find_home, prepare_environment
    from ...runs.processes import running, wait_for
    from ...tracking.mlflow.database import make_database
    from ..output import say

    ports = choose_mlflow_port(mlflow_port), choose_prefect_port(prefect_port)
    home = find_home()
    mlflow, prefect = find_mlflow(home, ports[0]), find_prefect(home, ports[1])
    if prefect.start is not None:
        os.environ["PREFECT_SERVER_UI_API_URL"] = f"{prefect.address}/api"
    prepare_environment(home)
    if mlflow.start is not None:
        make_database(home.mlflow_uri)
    started = [pages.start for pages in (mlflow, prefect) if pages.start is not None]
    with running(*started):
        for pages in (mlflow, prefect):
            if pages.start is not None:
                wait_for(pages.health, pages.start)
            say(pages.line)
        for name, path in newest_pages(home):
            say(f"{name:<8} {path}")
        if started:
            say("Ctrl-C stops what was started")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


def find_mlflow(home: Home, port: int) -> Pages:
    """Return the server that the user named, ours that runs already, or one to start."""
    from ...runs.processes import Service, serving_command

    uri = home.mlflow_uri.rstrip("/")
    if uri.startswith(("http://", "https://")):
        return Pages("MLflow", uri, f"{uri}/health", note="MLFLOW_TRACKING_URI")
    address = f"http://{HOST}:{port}"
    if _is_ours(f"{address}/health", port, "OK", "--mlflow-port"):
        return Pages("MLflow", address, f"{address}/health", note="runs already")
    command = serving_command("mlflow", "ui", "--backend-store-uri", uri, "--workers", "1")
    command += ["--host", HOST, "--port", str(port)]
    service = Service("MLflow", command, home.root / "logs" / "mlflow.log")
    return Pages("MLflow", address, f"{address}/health", service)


def find_prefect(home: Home, port: int) -> Pages:
    """Return the server that the user named, ours that runs already, or one to start."""
    from ...runs.processes import Service, serving_command

    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if url:
        return Pages("Prefect", url.removesuffix("/api"), f"{url}/health", note="PREFECT_API_URL")
    address = f"http://{HOST}:{port}"
    health = f"{address}/api/health"
    if _is_ours(health, port, "true", "--prefect-port"):
        return Pages("Prefect", address, health, note="runs already")
    command = serving_command("prefect", "server", "start")
    command += ["--host", HOST, "--port", str(port)]
    service = Service("Prefect", command, home.root / "logs" / "prefect.log")
    return Pages("Prefect", address, health, service)


def newest_pages(home: Home) -> Sequence[tuple[str, str]]:
    """Return the newest report and the newest viewer, which need no server."""
    found: list[tuple[str, str]] = []
    for name, file in (("report", "report.html"), ("viewer", "viewer.html")):
        pages = sorted(home.reports.glob(f"*/{file}"), key=lambda path: path.stat().st_mtime)
        found += [(name, str(path)) for path in pages[-1:]]
    return found


def _is_ours(health: str, port: int, answer: str, option: str) -> bool:
    """Return whether the UI runs at a port already.

    Raises:
        ValueError: Another program has the port.
    """
    import httpx

    from ...runs.processes import is_free

    if is_free(port):
        return False
    with contextlib.suppress(httpx.HTTPError):
        if httpx.get(health, timeout=5.0).text.strip() == answer:
            return True
    raise ValueError(f"another program has port {port}: choose one with {option}")
