"""``codedance flows serve``: Prefect's server and a worker, MLflow's UI, the deployments.

All services last as long as the command, and end with it if it is killed. A service that dies
(kill -9, out of memory) is restarted. Flow runs outlive their worker and this command: they
continue, and runs that died with it are marked before the next worker starts. On Ctrl-C the active
runs are asked to stop, end at their next safe point as Cancelled, and can be resumed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from ....policies.inference.server_words import without_credentials
from ...config.deployments import Deployment
from ...config.flows_file import all_deployments, find_flows_file
from ...config.home import Home, prepare_environment
from ...runs.processes import Service, ServiceError, is_free, running, serving_command, wait_for
from ...serving.client_file import client_file
from ...serving.flow_processes import flow_run_processes, orphans
from ...serving.named_server import check_named_server

LOOK_SECONDS = 0.5
STOP_SECONDS = 40.0
"""Time for runs to reach their next safe point before they are killed; saved state is kept."""
PAGES = "CODEDANCE_MLFLOW_PAGES"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DevServer:
    """Configuration of the dev server.

    Attributes:
        home: Home folder with all state.
        prefect_port: Port of Prefect's server, if PREFECT_API_URL names none.
        mlflow_port: Port of MLflow's UI; None for no UI.
        at_once: Maximum number of concurrent flow runs of the worker.
    """

    home: Home
    prefect_port: int
    mlflow_port: int | None
    at_once: int

    @property
    def logs(self) -> Path:
        """Folder for the output of servers and worker."""
        return self.home.root / "logs"


def serve_flows(dev_server: DevServer, say: Say) -> None:
    """Serve the deployments of flows.yaml until Ctrl-C.

    Raises:
        SettingsError: flows.yaml is invalid.
        ServiceError: A port is taken, or the server does not start.
        PrefectAwayError: The user's server does not answer.
        DeployError: Prefect rejected a deployment.
    """
    path = find_flows_file()
    deployments = all_deployments(path)
    server = _prepare(dev_server)
    from ...flows.checking import check_deployments

    check_deployments(path, deployments)
    if server is None:
        check_named_server()
    pages = _mlflow(dev_server)
    services = [service for service in (server, pages) if service is not None]
    with running(*services), contextlib.ExitStack() as stack:
        url = os.environ["PREFECT_API_URL"]
        shown = without_credentials(url).removesuffix("/api")
        say(f"Prefect   {shown}" + (" (starting)" if server else ""))
        is_known = False
        if server is not None:
            wait_for(f"{url}/health", server)
            is_known = stack.enter_context(client_file(url))
        from ...flows.deploying import deploy_all, drop_missed

        if server is not None and (missed := asyncio.run(drop_missed())):
            say(f"dropped   {missed} scheduled runs that were due while no server ran")
        pools = deploy_all(path)
        workers = [_worker(dev_server, pool) for pool in pools]
        if server is not None:
            _close_dead(pools, say)
        with running(*workers):
            _announce(dev_server, path, deployments, say)
            if not is_known:
                say(f"  (first: export PREFECT_API_URL={url if server else '… as here'})")
            say("Ctrl-C stops everything.")
            try:
                while True:
                    if server is not None and any(worker.is_due for worker in workers):
                        _close_dead(pools, say)
                    for service in (*services, *workers):
                        service.revive(say)
                    time.sleep(LOOK_SECONDS)
            except KeyboardInterrupt:
                say("stopping: active runs end at their next safe point; Ctrl-C again kills")
                with contextlib.suppress(KeyboardInterrupt):
                    stop_runs(workers)


def stop_runs(workers: list[Service], seconds: float = STOP_SECONDS) -> None:
    """Ask the flow runs of workers to stop, and wait until they have stopped.

    The workers are paused: they would start runs that wait for a concurrency limit that is now
    free. Runs whose worker has died are asked to stop, too.
    """
    for worker in workers:
        worker.hold()
    asked: set[psutil.Process] = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        alive = {child for worker in workers for child in worker.children()} | set(orphans())
        for child in alive - asked:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGTERM)
        asked |= alive
        if not alive:
            return
        time.sleep(LOOK_SECONDS)


def _close_dead(pools: list[str], say: Say) -> None:
    """Mark runs as crashed that a worker left and whose processes are gone.

    Only with our own server, all of whose runs are on this machine.
    """
    from ...flows.watching import close_dead_commands, close_dead_runs

    try:
        asyncio.run(close_dead_commands())
        closed = asyncio.run(close_dead_runs(pools, set(flow_run_processes())))
    except (httpx.HTTPError, OSError) as error:  # the automations will mark them
        say(f"could not check for dead runs: {error}")
        return
    if closed:
        say(f"{closed} flow runs died with their worker and are marked as crashed: rerun them")


def _prepare(dev_server: DevServer) -> Service | None:
    """Set the environment of server, worker and flows; return our server, if the user has none."""
    port = dev_server.prefect_port
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")  # the runs' log lines, on their pages
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "5")
    os.environ.setdefault("PREFECT_WORKER_HEARTBEAT_SECONDS", "15")
    os.environ.setdefault("PREFECT_SERVER_UI_API_URL", f"http://127.0.0.1:{port}/api")
    prepare_environment(dev_server.home)
    if os.environ.get("PREFECT_API_URL"):
        return None
    _demand_free(port, "--prefect-port", "use your own Prefect server: set PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    command = serving_command("prefect", "server", "start", "--port", str(port))
    return Service(
        "Prefect's server",
        [*command, "--host", "127.0.0.1"],
        dev_server.logs / "prefect.log",
        {"PREFECT_LOGGING_LEVEL": "WARNING"},
    )


def _mlflow(dev_server: DevServer) -> Service | None:
    port = dev_server.mlflow_port
    uri = dev_server.home.mlflow_uri
    if port is None or uri.startswith("http"):
        return None
    _demand_free(port, "--mlflow-port", "use none: --no-mlflow")
    os.environ[PAGES] = f"http://127.0.0.1:{port}"
    command = serving_command("mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1")
    log = dev_server.logs / "mlflow.log"
    return Service("MLflow", [*command, "--port", str(port), "--workers", "1"], log)


def _demand_free(port: int, option: str, otherwise: str) -> None:
    if not is_free(port):
        raise ServiceError(
            f"port {port} is taken (by another `codedance flows serve` or `ui`?): choose one "
            f"with {option}, or {otherwise}"
        )


def _worker(dev_server: DevServer, pool: str) -> Service:
    command = serving_command("prefect", "worker", "start", "--pool", pool, "--type", "process")
    name = f"codedance on {socket.gethostname()}"
    return Service(
        f"the worker of {pool}",
        [*command, "--name", name, "--limit", str(dev_server.at_once)],
        dev_server.logs / f"worker-{pool}.log",
    )


def _announce(dev_server: DevServer, path: Path, deployments: list[Deployment], say: Say) -> None:
    pages = os.environ.get(PAGES)
    if pages is not None:
        say(f"MLflow    {pages}")
    say(f"worker    up to {dev_server.at_once} runs at once, one training at a time")
    say(f"logs      {dev_server.logs}")
    say(f"flows     {path}")
    names = [f"{entry.entrypoint.rpartition('.')[2]}/{entry.name}" for entry in deployments]
    for name, entry in zip(names, deployments, strict=True):
        say(f"          {name:<22} {describe_schedules(entry)}".rstrip())
    say("Start a run in another terminal, in this folder, or in Prefect's UI:")
    say(f"  prefect deployment run {names[0]} --watch")


def describe_schedules(entry: Deployment) -> str:
    """Return the schedules of a deployment in words.

    >>> from codedance.pipelines.config.schedules import Schedule
    >>> describe_schedules(Deployment(name="a", entrypoint="b", schedules=[Schedule(interval=300)]))
    'every 300 s'
    """
    words: list[str] = []
    for schedule in entry.schedules:
        when = f"every {schedule.interval:g} s" if schedule.interval else ""
        when = when or f"{schedule.cron or schedule.rrule} {schedule.timezone or ''}".strip()
        words.append(when if schedule.active else f"({when}: paused)")
    return ", ".join(words)
