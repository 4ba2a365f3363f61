"""Prefect's server for the length of one command, where the user has none.

Prefect would start one too, but among the processes that a terminal sends Ctrl-C to: the server
would be gone while the flow still has to say that it was cancelled, and Prefect's client asks for
minutes. This one stands in a session of its own, and goes when the command does, however it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..config.home import Home
from ..runs.processes import Service, free_port, serving_command, wait_for

if TYPE_CHECKING:
    from fastapi import FastAPI

HOST = "127.0.0.1"
LAST_WORDS_SECONDS = 5.0


@contextmanager
def own_server(home: Home, check: Callable[[], None]) -> Generator[None]:
    """Have Prefect's server answer while the context lasts: the user's, or one of our own.

    Args:
        home: Where its log goes.
        check: Called while it starts; what it raises ends the wait.

    Raises:
        ServiceError: It does not come up.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    )

    if PREFECT_API_URL.value():
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
            yield
        finally:
            _send_last_words()
            del os.environ["PREFECT_API_URL"]
            refresh_global_settings_context()
    finally:
        service.end()


def app() -> FastAPI:
    """Return Prefect's app for uvicorn, without pages and schedules."""
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
    """Send the log lines and events that Prefect still holds, while there is who takes them."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    workers: list[Any] = [APILogWorker, EventsWorker]  # typed by Prefect as if asynchronous
    for worker in workers:
        worker.drain_all(timeout=LAST_WORDS_SECONDS, at_exit=False)
