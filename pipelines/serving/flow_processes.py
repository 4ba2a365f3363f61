"""The processes of flow runs on this machine, whether their worker is alive or not."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import psutil

from ..config.home import Home

RUN = "PREFECT__FLOW_RUN_ID"
"""Set by Prefect in the process that it starts for one flow run."""
LOG = "flow-runs.log"
_SERVER = "PREFECT_API_URL"


def flow_run_processes() -> dict[str, psutil.Process]:
    """Return the process of each flow run of any server, by the run's id.

    Only processes of this user: the kernel hides the environment of others.
    """
    found: dict[str, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            is_prefect = any(part.startswith("prefect.") for part in process.cmdline())
            environment = process.environ() if is_prefect else {}
            is_alive = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            continue
        if is_alive and RUN in environment:
            found[environment[RUN]] = process
    return found


def orphans() -> list[psutil.Process]:
    """Return the processes for the server in ``PREFECT_API_URL`` whose worker is dead."""
    return [one for one in flow_run_processes().values() if _is_orphan(one)]


def _is_orphan(process: psutil.Process) -> bool:
    try:
        parent = process.parent()
        has_worker = parent is not None and "worker" in parent.cmdline()
        return not has_worker and process.environ().get(_SERVER) == os.environ.get(_SERVER)
    except (psutil.Error, OSError):
        return False


def keep_output(home: Home) -> None:
    """Redirect output to ``logs/flow-runs.log`` if the parent process reads it through a pipe.

    A process worker reads the output of its flow runs through pipes: when it dies, the next line
    would end the run. In a container, whose output the engine reads, nothing changes.
    """
    piped = [number for number in (1, 2) if _is_read_by_parent(number)]
    if not piped:
        return
    path = home.root / "logs" / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(piped[-1], f"the output of this flow run is in {path}\n".encode())
    sys.stdout.flush()
    sys.stderr.flush()
    for number in piped:
        os.dup2(log, number)
    os.close(log)


def _is_read_by_parent(number: int) -> bool:
    """Whether a descriptor is a pipe whose other end the parent process has."""
    try:
        if not stat.S_ISFIFO(os.fstat(number).st_mode):
            return False
        ours = os.readlink(f"/proc/self/fd/{number}")
        others = list(Path(f"/proc/{os.getppid()}/fd").iterdir())
    except OSError:
        return False
    return any(_is_read_end(other, ours) for other in others)


def _is_read_end(other: Path, pipe: str) -> bool:
    try:  # the mode of a descriptor's link shows whether it was opened for reading
        return os.readlink(other) == pipe and bool(other.lstat().st_mode & stat.S_IRUSR)
    except OSError:
        return False
