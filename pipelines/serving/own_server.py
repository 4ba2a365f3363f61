"""Prefect's server for the duration of one command, if the user has none.

Prefect would start one too, but in the process group that a terminal sends Ctrl-C to: the server
would be gone before the flow could report that it was cancelled, and Prefect's client would retry
for minutes. This one runs in its own session, and ends with the command, however it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..concurrency.background import repeated
from ..config.home import Home
from ..runs.processes import Service, free_port, serving_command, wait_for
from .named_server import check_named_server

if TYPE_CHECKING:
    from fastapi import FastAPI

HOST = "127.0.0.1"
LAST_WORDS_SECONDS = 5.0
LOOK_SECONDS = 0.5


@contextmanager
def own_server(
    home: Home, check: Callable[[], None], say: Callable[[str], None]
) -> Generator[None]:
    """Ensure that a Prefect server answers within the context: the user's, or our own.

    Ours is restarted if it dies; its database is on disk, and Prefect's client tries again.

    Args:
        home: Home folder for its log.
        check: Called while it starts; an exception that it raises ends the wait.
        say: Called with a message if it died.

    Raises:
        ServiceError: The server does not start.
        PrefectAwayError: The user's server does not answer.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    )

    if PREFECT_API_URL.value():
        check_named_server("add --no-prefect")
        yield
        return
    port = free_port()
    url = f"http://{HOST}:{port}/api"
    service = _service(home, port)
    service.start()
    try:
        patience = float(PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
        wait_for(f"{url}/health", service, patience, check)
        os.environ["PREFECT_API_URL"] = url
        refresh_global_settings_context()
        try:
            with repeated(lambda: service.revive(say), every=LOOK_SECONDS, name="prefect-server"):
                try:
                    yield
                finally:
                    _send_last_words()
        finally:
            del os.environ["PREFECT_API_URL"]
            refresh_global_settings_context()
    finally:
        service.end()


def app() -> FastAPI:
    """Return Prefect's app for uvicorn, without UI and schedules."""
    from prefect.server.api.server import create_app

    return create_app(ephemeral=True, final=True)


def _service(home: Home, port: int) -> Service:
    command = serving_command("uvicorn", "--factory", f"{__name__}:app", "--log-level", "error")
    environment = {
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_UI_ENABLED": "false",
    }
    log = home.root / "logs" / "prefect-of-runs.log"
    command += ["--host", HOST, "--port", str(port)]
    return Service("Prefect's server", command, log, environment)


def _send_last_words() -> None:
    """Send the log lines and events that Prefect still buffers, while the server is running."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    workers: list[Any] = [APILogWorker, EventsWorker]  # typed by Prefect as if asynchronous
    for worker in workers:
        worker.drain_all(timeout=LAST_WORDS_SECONDS, at_exit=False)
