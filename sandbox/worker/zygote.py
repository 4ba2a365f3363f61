"""The zygote: imports the libraries once in outer isolation, then forks a session per request.

It is configured over its control socket (descriptor 0) only, not by argv or environment. Requests
and replies are JSON, one per message; descriptors are sent beside them. A signal has no reply. A
request for a session holds descriptors only: what is the session's own (its seed) is read by the
session from its own socket, as the memory of the zygote is passed on to all later ones.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from . import kernel
from .framing import MESSAGE_BYTES
from .isolation import Isolation, choose_isolation
from .places import installed_folders
from .session import Codec, SessionPlan, live

MOST_DESCRIPTORS = 65
"""Maximum number of descriptors per request: the session's socket and its images."""


def main() -> None:
    """Read the configuration from the control socket, then serve it until the host closes it."""
    control = _take_control_socket()
    config: dict[str, Any] = json.loads(control.recv(MESSAGE_BYTES))
    if "paths" not in config:
        config |= _own_layout()
    try:
        codec = _load_codec(config["msgpack"])
        isolation = choose_isolation(config)
        isolation.enter()
        sys.path[:] = config["paths"]
        _import_libraries(config["libraries"], optional=config["optional"])
        kernel.prepare_sorting()
        isolation.seal()
    except Exception as error:
        _reply(control, {"error": f"{type(error).__name__}: {error}"[:4096]})
        raise
    built = {"tier": isolation.name, "isolation": isolation.description}
    _reply(control, {**built, "folders": installed_folders()})
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    _serve(control, codec, isolation, config["limits"])
    isolation.await_sessions()


def _take_control_socket() -> socket.socket:
    control = socket.socket(fileno=os.dup(0))
    os.set_inheritable(control.fileno(), False)
    sys.argv[:] = [""]
    sys.orig_argv[:] = [""]
    return control


def _own_layout() -> dict[str, Any]:
    """Return the folders of Python and the libraries in a container, unknown to the host."""
    image = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    site = os.path.join(image, "site")
    return {
        "paths": [*filter(os.path.exists, sys.path), site],
        "base_prefix": sys.base_prefix,
        "msgpack": os.path.join(site, "msgpack"),
    }


def _serve(
    control: socket.socket, codec: Codec, isolation: Isolation, limits: dict[str, Any]
) -> None:
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, MOST_DESCRIPTORS)
        if not message:
            return
        request = json.loads(message)
        if "signal" in request:
            _signal(descriptors, request["signal"])
            continue
        plan = SessionPlan(limits, picture_fds=descriptors[1:], connection_fd=descriptors[0])
        try:
            pid = isolation.fork()
        except OSError as error:
            _reply(control, {"error": f"fork failed: {error}", "errno": error.errno})
        else:
            if pid == 0:
                live(plan, codec, isolation.raise_for_session)
            _send_handle(control, pid)
        for descriptor in descriptors:
            os.close(descriptor)


def _signal(handles: list[int], number: int) -> None:
    """Signal a session on behalf of a host that is another user; there is no reply."""
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        os.close(handle)


def _send_handle(control: socket.socket, pid: int) -> None:
    """Reply with a pidfd of the process, by which the host kills exactly this one."""
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        _reply(control, {"error": f"the session died at birth: {error}"})
        return
    _reply(control, {"pid": pid}, [handle])
    os.close(handle)


def _reply(control: socket.socket, message: object, descriptors: Sequence[int] = ()) -> None:
    data = json.dumps(message).encode()
    if descriptors:
        socket.send_fds(control, [data], list(descriptors))
    else:
        control.send(data)


def _load_codec(folder: str) -> Codec:
    """Load msgpack from the host's folder: this interpreter's libraries may lack it."""
    spec = importlib.util.spec_from_file_location(
        "msgpack", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no msgpack in {folder}")
    package: Any = importlib.util.module_from_spec(spec)
    sys.modules["msgpack"] = package
    spec.loader.exec_module(package)
    return Codec(package.packb, package.unpackb)


def _import_libraries(names: Sequence[str], *, optional: Sequence[str]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:  # code that imports it gets the error in its own turn
            if name not in optional or error.name != name.partition(".")[0]:
                raise
    if "numpy" in sys.modules:
        importlib.import_module("numpy.random")  # else each session would load it to seed it
    cv2: Any = sys.modules.get("cv2")
    if cv2 is not None:
        cv2.setNumThreads(0)  # its pool would not survive a fork
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:  # fonts and the first figure cost a tenth of a second
        figure = pyplot.figure()
        figure.gca().set_title("warm")
        figure.canvas.draw()
        pyplot.close(figure)
