"""Load this folder as a separate package and run the zygote; a script, never imported."""

import importlib.util
import os
import socket
import stat
import sys

_MEETING_PLACE = "/run/codedance/control"  # the host's socket in a container


def _load_worker() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if path != folder]
    spec = importlib.util.spec_from_file_location(
        "codedance_worker",
        os.path.join(folder, "__init__.py"),
        submodule_search_locations=[folder],
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no worker package in {folder}")
    package = importlib.util.module_from_spec(spec)
    sys.modules["codedance_worker"] = package
    spec.loader.exec_module(package)


def _meet_host() -> None:
    """Connect, in a container, the control socket to descriptor 0 and the log to descriptor 2."""
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.connect(_MEETING_PLACE)
        _, (log,), _, _ = socket.recv_fds(control, 16, 1)
        os.dup2(control.fileno(), 0)
    os.dup2(log, 2)
    os.close(log)


if __name__ == "__main__":
    _meet_host()
    _load_worker()
    importlib.import_module("codedance_worker.zygote").main()
