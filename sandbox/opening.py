"""Opening of a sandbox by the name of its backend."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .types import DEFAULT_LIBRARIES, Limits, Sandbox, SandboxUnavailableError

BACKENDS = ("local", "docker", "unsafe-subprocess")
"""Available backends; one for remote machines (``ray``) is planned and refused until then."""

_FLOORS = ("confined", "full")


def open_sandbox(
    backend: str = "local",
    *,
    limits: Limits | None = None,
    python: str | None = None,
    libraries: Sequence[str] = DEFAULT_LIBRARIES,
    floor: str | None = None,
    image: str | None = None,
) -> Sandbox:
    """Open a sandbox for model code; close it, or use it as a context manager.

    Args:
        backend: ``local`` (isolation by the kernel, no daemon, no root), ``docker`` (the same
            isolation inside one hardened container) or ``unsafe-subprocess`` (the same worker
            without isolation, for debugging code that you wrote yourself).
        limits: Limits of each session; None for the defaults.
        python: Interpreter of the worker; None for this one. A container uses its image's.
        libraries: Modules that the zygote imports once; others load when code imports them.
            Default libraries that the interpreter lacks are skipped.
        floor: Minimum isolation level: ``full`` (namespaces, private file system and the rest) or
            ``confined``, the default (system calls, file access and resources only).
        image: Image of the docker backend, as built by `codedance sandbox build`; None for the
            default image.

    Example:
        >>> with open_sandbox("local", libraries=()) as sandbox, sandbox.session() as session:
        ...     session.run("x = [20, 22]").outcome.value, session.run("sum(x)").stdout.strip()
        ('ok', '42')

    Raises:
        ValueError: The backend or floor is unknown, or the backend does not support the limits.
        SandboxUnavailableError: This machine cannot run the backend, or only below the floor.
    """
    limits = limits or Limits()
    _check(backend, limits, floor)
    if backend == "docker":
        return _open_container(limits, python, libraries, floor, image)
    from .host.interpreter import ask_interpreter
    from .host.zygote import ZygotePlan
    from .local import LocalSandbox

    is_unsafe = backend == "unsafe-subprocess"
    plan = ZygotePlan(
        interpreter=ask_interpreter(python or sys.executable),
        libraries=tuple(libraries),
        limits=limits,
        isolation="none" if is_unsafe else "auto",
    )
    return LocalSandbox(plan, floor="none" if is_unsafe else floor or "confined")


def _open_container(
    limits: Limits,
    python: str | None,
    libraries: Sequence[str],
    floor: str | None,
    image: str | None,
) -> Sandbox:
    if python is not None:
        raise ValueError(
            f"the docker backend runs its image's own Python, got python={python!r}; choose it "
            "when the image is built: codedance sandbox build --python PATH"
        )
    if not hasattr(os, "memfd_create"):
        raise SandboxUnavailableError(
            f"the docker backend shares memory and process handles with its container, which "
            f"{sys.platform} cannot; run codedance itself in a Linux container or in WSL 2"
        )
    from .docker.backend import container_plan, starter
    from .local import LocalSandbox

    plan = container_plan(libraries, limits)
    return LocalSandbox(plan, floor=floor or "confined", start=starter(image))


def _check(backend: str, limits: Limits, floor: str | None) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"no backend {backend!r}; there are {', '.join(map(repr, BACKENDS))}")
    if floor is not None and floor not in _FLOORS:
        raise ValueError(f"no floor {floor!r}; there are {', '.join(map(repr, _FLOORS))}")
    if limits.processes != 1:
        raise ValueError(
            f"a session of backend {backend!r} is one process, got Limits.processes="
            f"{limits.processes}; use threads, or leave it at 1"
        )
    if backend != "docker" and not sys.platform.startswith("linux"):
        raise SandboxUnavailableError(
            f"backend {backend!r} needs Linux, this is {sys.platform}; use the Docker backend "
            "(sandbox='docker'), or run codedance in Docker"
        )
