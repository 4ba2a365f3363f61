"""A vLLM server as long as this process needs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...runs.processes import Service, ServiceError, is_free, wait_for
from .command import EngineOptions, engine_command, engine_environment
from .environment import engine_python

_START_SECONDS = 1800.0  # a large model is read from a network disk


@dataclass(frozen=True, slots=True)
class Engine:
    """A vLLM server.

    Attributes:
        url: Base URL.
        service: Its process.
    """

    url: str
    service: Service


@contextmanager
def running_engine(
    model: str,
    options: EngineOptions,
    *,
    log: Path,
    say: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> Generator[Engine]:
    """Serve a model while the context lasts; entered when the server answers.

    Args:
        model: Model folder or hub id.
        options: Options.
        log: File that the server's output is appended to.
        say: Called with messages.
        check: Called while it starts; an exception that it raises ends the wait.

    Raises:
        EngineError: There is no vLLM, and its environment could not be made.
        ServiceError: The port is taken, or the server died or did not answer in time; the message
            quotes its log.
    """
    arguments = engine_command("", model, options)[1:]  # refuses what vLLM cannot serve
    if not is_free(options.port):
        raise ServiceError(f"port {options.port} is taken: choose another for vLLM, or stop it")
    variables = engine_environment(options, visible=os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    python = engine_python(say, has_gpu=bool(options.gpus))
    service = Service("vLLM", [str(python), *arguments], log, variables)
    host = f"[{options.host}]" if ":" in options.host else options.host
    engine = Engine(f"http://{host}:{options.port}", service)
    say(f"starting vLLM; its log is {log}")
    service.start()
    try:
        wait_for(f"{engine.url}/health", service, _START_SECONDS, check)
        yield engine
    finally:
        service.end()
