"""Accidents that interrupt a running command, and how it resumes."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, contextmanager, suppress

import psutil
from codedance.pipelines.runs.processes import free_port

from benchmarks.measuring.postgres import PostgresServer

from ..kills import (
    LIMIT_SECONDS,
    command_line,
    flow_run_of,
    killed_at_end,
    prefect,
    served,
    wait_until,
    worker_of,
)
from ..mlflow_server import MlflowServer
from .accident_trial import FAILED, INTERRUPTED, KILLED, STAGES, Trial, check_whole, prefect_states


def killed_command(trial):
    """Kill -9 of the command (as the kernel does when memory runs out)."""
    process = trial.start()
    with killed_at_end(process):
        trial.reach(process)
        family = trial.folder.family(process)
        process.kill()
        trial.end(process, KILLED)
    assert not psutil.wait_procs(family, timeout=LIMIT_SECONDS)[1]
    trial.go_on()


def ctrl_c(trial):
    """Ctrl-C, sent to the whole process group like from a terminal."""
    process = trial.start()
    with killed_at_end(process):
        trial.reach(process)
        os.killpg(process.pid, signal.SIGINT)
        trial.end(process, INTERRUPTED)
    assert "resumes it" in trial.said
    assert "Traceback" not in trial.said
    trial.go_on()


def ctrl_c_while_waiting(trial):
    """Ctrl-C while another training on the host is running."""
    locks = trial.folder.root / "locks"
    locks.mkdir(exist_ok=True)
    holder = trial.start()
    with killed_at_end(holder):
        trial.reach(holder)
        with suspended(holder):
            _interrupt_waiting(trial, (*trial.command, "--refresh"), "waiting for its turn")
        trial.end(holder, 0)


def ctrl_c_while_waiting_for_a_machine(trial):
    """Ctrl-C while another machine runs the same stage: it has other locks and another name."""
    holder = trial.start()
    with killed_at_end(holder):
        trial.reach(holder)
        with closing(sqlite3.connect(trial.folder.home.root / "store.db")) as database:
            database.execute(
                "UPDATE claims SET host = 'another boot', name = 'elsewhere', "
                "expires_at = expires_at + 3600"
            )
            database.commit()
        trial.folder.extra["CODEDANCE_LOCKS"] = str(trial.folder.root / "other locks")
        with suspended(holder):
            _interrupt_waiting(trial, trial.command, "sft: waiting, ")
        assert "elsewhere" in trial.folder.said("other.log")
        trial.end(holder, 0)


@contextmanager
def suspended(process):
    """Stop a process while the context lasts, so that it does not finish its work meanwhile."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def _interrupt_waiting(trial, command, words):
    """Start a second command and press Ctrl-C once it waits, which it says with ``words``."""
    other = trial.folder.start(*command, log="other.log")
    with killed_at_end(other):
        wait_until(
            lambda: words in trial.folder.said("other.log") or other.poll() is not None,
            lambda: trial.folder.said("other.log"),
        )
        begun = time.monotonic()
        os.killpg(other.pid, signal.SIGINT)
        assert other.wait(LIMIT_SECONDS) == INTERRUPTED, trial.folder.said("other.log")
        trial.notes["seconds"] = time.monotonic() - begun
    assert "Traceback" not in trial.folder.said("other.log")


def killed_child(word: str) -> Callable[[Trial], None]:
    """Return the kill of a process of the command, found by a word in its command line."""

    def happen(trial):
        process = trial.start()
        with killed_at_end(process):
            trial.reach(process)
            children = psutil.Process(process.pid).children(recursive=True)
            named = [one for one in children if any(word in part for part in command_line(one))]
            first = min(named, key=lambda one: one.create_time())
            done, begun = trial.progress(), time.monotonic()
            first.kill()
            wait_until(
                lambda: trial.progress() > done or process.poll() is not None, lambda: trial.said
            )
            trial.notes["seconds"] = time.monotonic() - begun
            code = process.wait(LIMIT_SECONDS)
            assert "Traceback" not in trial.said, trial.said
        trial.notes["exit"] = str(code)
        if code != 0:
            assert code == FAILED, trial.said
            trial.go_on()

    happen.__doc__ = f"kill -9 of the process {word}."
    return happen


def full_disk(trial):
    """No file can grow, as on a full disk."""
    process = trial.start()
    with killed_at_end(process):
        trial.reach(process)
        sizes = []
        for path in trial.folder.home.root.rglob("*"):
            with suppress(OSError):  # a journal may have been deleted
                sizes.append(path.stat().st_size)
        size = max(sizes) // 2
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        trial.end(process, FAILED)
    assert "no space left" in trial.said, trial.said
    assert "Traceback" not in trial.said, trial.said
    trial.go_on()


def mlflow_away(*, at_start: bool) -> Callable[[Trial], None]:
    """Return an outage of the MLflow server, from the start or in the middle."""

    def happen(trial):
        server = MlflowServer(trial.folder.root / "mlflow")
        server.folder.mkdir()
        trial.folder.extra["MLFLOW_TRACKING_URI"] = server.address
        trial.folder.extra["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "2"
        if not at_start:
            server.start()
        try:
            process = trial.start()
            with killed_at_end(process):
                trial.reach(process)
                server.kill()
                trial.end(process, 0)
            assert "cannot be reached" in trial.said
            assert "codedance mlflow sync" in trial.said
            server.start()
            begun = time.monotonic()
            said = trial.folder.run("mlflow", "sync", "latest", log="sync.log")
            trial.notes["seconds"] = time.monotonic() - begun
            assert said.count("up to date in MLflow") == 1 + len(STAGES)
        finally:
            server.kill()

    happen.__doc__ = f"MLflow's server is away {'from the start' if at_start else 'in the middle'}."
    return happen


def postgres_away(*, at_start: bool) -> Callable[[Trial], None]:
    """Return an outage of the PostgreSQL server, at the start or in the middle."""

    def happen(trial):
        with PostgresServer({"fsync": "off"}) as server:
            trial.folder.extra["CODEDANCE_STORE_URL"] = server.make_database("store")
            if at_start:
                server.stop("immediate")
                process = trial.start()
                with killed_at_end(process):
                    trial.end(process, FAILED)
                assert "Traceback" not in trial.said, trial.said
                server.start()
                trial.go_on()
            else:
                process = trial.start()
                with killed_at_end(process):
                    trial.reach(process)
                    server.stop("immediate")
                    wait_until(lambda: "waiting for it" in trial.said, lambda: trial.said)
                    done, begun = trial.progress(), time.monotonic()
                    server.start()
                    wait_until(
                        lambda: trial.progress() > done or process.poll() is not None,
                        lambda: trial.said,
                    )
                    trial.notes["seconds"] = time.monotonic() - begun
                    trial.end(process, 0)
            check_whole(trial)

    happen.__doc__ = f"PostgreSQL is away {'at the start' if at_start else 'in the middle'}."
    return happen


def model_server_away(trial):
    """The model server is killed in the middle and restarted."""
    port = str(free_port())
    serve = ("serve", "model", "random", "--port", port)
    trial.command = (*trial.command, "--base-url", f"http://127.0.0.1:{port}/v1")
    server = trial.folder.start(*serve, log="server.log")
    with killed_at_end(server):
        wait_until(lambda: "/v1" in trial.folder.said("server.log"))
        process = trial.start()
        with killed_at_end(process):
            trial.reach(process)
            server.kill()
            server.wait()
            trial.end(process, 1, FAILED)
        assert "Traceback" not in trial.said, trial.said
    server = trial.folder.start(*serve, log="server-again.log")
    with killed_at_end(server):
        wait_until(lambda: "/v1" in trial.folder.said("server-again.log"))
        trial.go_on()


def model_server_not_started(trial):
    """The model server is started after the command has failed."""
    port = str(free_port())
    trial.command = (*trial.command, "--base-url", f"http://127.0.0.1:{port}/v1")
    process = trial.start()
    with killed_at_end(process):
        trial.end(process, 1, FAILED)
    assert "Traceback" not in trial.said, trial.said
    server = trial.folder.start("serve", "model", "random", "--port", port, log="server.log")
    with killed_at_end(server):
        wait_until(lambda: "/v1" in trial.folder.said("server.log"))
        trial.go_on()


def unwritable_folder(trial):
    """CODEDANCE_DIR cannot be written at the start: a file, which stops root too, is there."""
    root = trial.folder.home.root
    root.write_text("")
    process = trial.start()
    with killed_at_end(process):
        trial.end(process, FAILED)
    assert f"cannot write to {root}" in trial.said, trial.said
    assert "Traceback" not in trial.said, trial.said
    root.unlink()
    trial.go_on()


def killed_flow_run(trial):
    """Kill -9 of a training under ``flows serve``; its deployment is rerun."""
    with served(trial.folder) as server:
        prefect(trial.folder, "deployment", "run", "sft/tiny")
        trial.folder.wait_for_step(server, 2)
        flow_run_of(trial.folder).kill()
        done, begun = trial.progress(), time.monotonic()
        wait_until(lambda: prefect_states(trial) == ["Crashed"], lambda: str(prefect_states(trial)))
        prefect(trial.folder, "deployment", "run", "sft/tiny")
        wait_until(lambda: trial.progress() > done)
        trial.notes["seconds"] = time.monotonic() - begun
        wait_until(lambda: "Completed" in prefect_states(trial), lambda: str(prefect_states(trial)))


def killed_worker(trial):
    """Kill -9 of the worker of ``flows serve``: the training continues without it."""
    with served(trial.folder) as server:
        prefect(trial.folder, "deployment", "run", "sft/tiny")
        trial.folder.wait_for_step(server, 2)
        worker, done, begun = worker_of(server), trial.progress(), time.monotonic()
        worker.kill()
        wait_until(lambda: trial.progress() > done or "Completed" in prefect_states(trial))
        trial.notes["seconds"] = time.monotonic() - begun
        wait_until(
            lambda: prefect_states(trial) == ["Completed"], lambda: str(prefect_states(trial))
        )
