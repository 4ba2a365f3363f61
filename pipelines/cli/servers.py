"""``codedance ui`` and ``codedance flows``: MLflow's and Prefect's own servers and deployments."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..settings import Schedule

flows_app = typer.Typer(
    help="Run the flows by schedule or from Prefect's UI.", no_args_is_help=True
)
Port = Annotated[int, typer.Option(min=1, max=65535, help="Where its page is.")]
POOL = "codedance-process"


def ui(mlflow_port: Port = 15000, prefect_port: Port = 14200) -> None:
    """Start MLflow's and Prefect's pages on this machine; Ctrl-C ends them."""
    from ..home import find_home, prepare_environment
    from .output import say

    home = find_home()
    os.environ["PREFECT_SERVER_UI_API_URL"] = f"http://127.0.0.1:{prefect_port}/api"
    prepare_environment(home)
    with _servers(_mlflow_command(home.mlflow_uri, mlflow_port), _prefect_command(prefect_port)):
        say(f"MLflow   http://127.0.0.1:{mlflow_port}")
        say(f"Prefect  http://127.0.0.1:{prefect_port}")
        say("Ctrl-C ends both")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


@flows_app.command()
def serve(prefect_port: Port = 14200) -> None:
    """Serve the deployments of flows.yaml: schedules fire, Prefect's UI can start runs."""
    from ..home import find_home, prepare_environment
    from .output import say

    home = find_home()
    os.environ["PREFECT_SERVER_UI_API_URL"] = f"http://127.0.0.1:{prefect_port}/api"
    prepare_environment(home)
    if os.environ.get("PREFECT_API_URL"):
        _serve()
        return
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{prefect_port}/api"
    with _servers(_prefect_command(prefect_port)):
        _wait_for(f"http://127.0.0.1:{prefect_port}/api/health")
        say(f"Prefect  http://127.0.0.1:{prefect_port}")
        _serve()


@flows_app.command()
def deploy() -> None:
    """Register the deployments of flows.yaml with the Prefect server in PREFECT_API_URL."""
    from ..flows_file import find_flows_file, load_flows_file
    from ..home import find_home, prepare_environment

    prepare_environment(find_home())
    path = find_flows_file()
    load_flows_file(path)
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    pools = subprocess.run(
        [*prefect, "work-pool", "inspect", POOL], capture_output=True, check=False
    )
    if pools.returncode != 0:
        subprocess.run([*prefect, "work-pool", "create", POOL, "--type", "process"], check=True)
    done = subprocess.run([*prefect, "deploy", "--all", "--prefect-file", str(path)], check=False)
    raise typer.Exit(done.returncode)


def _serve() -> None:
    from prefect import serve as serve_all
    from prefect.types.entrypoint import EntrypointType

    from ..flows import FLOWS, pipeline
    from ..flows_file import load_flows_file

    known = {**FLOWS, "pipeline": pipeline}
    deployments: list[Any] = [
        known[entry.entrypoint.rpartition(".")[2]].to_deployment(
            entry.name,
            parameters=entry.parameters,
            tags=entry.tags,
            description=entry.description,
            schedules=_schedules(entry.schedules),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for entry in load_flows_file().deployments
    ]
    serve_all(*deployments, limit=1)


def _schedules(entries: Sequence[Schedule]) -> list[Any] | None:
    """Turn our schedules into Prefect's."""
    from prefect.schedules import Cron, Interval, RRule

    found: list[Any] = []
    for entry in entries:
        values = entry.model_dump(exclude_none=True)
        options = {
            k: values[k] for k in ("timezone", "active", "slug", "parameters") if k in values
        }
        for name, kind in (("cron", Cron), ("interval", Interval), ("rrule", RRule)):
            if name in values:
                found.append(kind(values[name], **options))
    return found or None


def _mlflow_command(uri: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]


def _prefect_command(port: int) -> list[str]:
    command = [sys.executable, "-m", "prefect", "server", "start"]
    return [*command, "--host", "127.0.0.1", "--port", str(port)]


@contextlib.contextmanager
def _servers(*commands: list[str]) -> Generator[None]:
    """Run servers while the context lasts, their output in log files of CODEDANCE_DIR."""
    from ..home import find_home

    logs = find_home().root / "logs"
    logs.mkdir(exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):  # both end the servers, in the background too
        signal.signal(number, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        for command in commands:
            log = stack.enter_context((logs / f"{command[2]}.log").open("w"))
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            stack.callback(_end, process)
        yield


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it started: politely, then whatever is left."""
    for number, patience in ((signal.SIGTERM, 8.0), (signal.SIGKILL, 2.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)


def _wait_for(address: str, seconds: float = 60.0) -> None:
    import httpx

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(address, timeout=2.0).is_success:
                return
        time.sleep(0.3)
    raise RuntimeError(f"{address} did not answer within {seconds:.0f} s; see the log")
