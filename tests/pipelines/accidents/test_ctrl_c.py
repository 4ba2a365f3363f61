"""A real Ctrl-C in a real process: it stops soon, says how to resume, and resumes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import psutil
import pytest

THROUGH_PREFECT = [
    sys.executable,
    "-c",
    "from codedance.pipelines.cli import main; main()",
    *("curate", "--preset", "smoke"),
]


def status_of_curation(home):
    """Read the lineage from outside; None if there is no row yet."""
    path = home.root / "store.db"
    if not path.exists():
        return None
    connection = sqlite3.connect(path)
    try:
        row = connection.execute("SELECT status FROM lineage WHERE stage = 'curate'").fetchone()
    except sqlite3.OperationalError:  # the tables are being created
        return None
    finally:
        connection.close()
    return row and row[0]


def wait_until_running(home, process, seconds=280):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if status_of_curation(home) == "running":
            return
        time.sleep(0.02)
    raise AssertionError(f"curation did not start: {process.communicate()}")


@pytest.mark.slow
def test_interrupted_command_resumes_when_rerun(home, tiny, way):
    command = [*THROUGH_PREFECT, *way]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    wait_until_running(home, process)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=280)
    assert process.returncode == 130, error
    assert "resumes it" in out
    assert "Traceback" not in error
    assert status_of_curation(home) == "interrupted"

    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "curate: resuming curate-" in again.stderr
    assert status_of_curation(home) == "finished"


def begin_through_prefect(**files):
    """Start the command as a shell does, in its own process group."""
    return subprocess.Popen(THROUGH_PREFECT, start_new_session=True, text=True, **files)


def servers_of(process):
    """Return the servers that a command started."""
    children = psutil.Process(process.pid).children()
    return [
        child
        for child in children
        if "codedance.pipelines.serving.own_server:app" in child.cmdline()
    ]


@pytest.mark.slow
def test_ctrl_c_of_a_terminal_lets_prefects_server_record_it(home, tiny):
    """A terminal sends it to every process of the group, including Prefect's own server."""
    process = begin_through_prefect(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until_running(home, process)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=280)
    assert process.returncode == 130, error
    assert "resumes it" in out
    assert "Traceback" not in error
    with closing(sqlite3.connect(home.root / "prefect" / "prefect.db")) as prefect:
        states = prefect.execute("SELECT state_name FROM flow_run").fetchall()
    assert states == [("Cancelled",)]


@pytest.mark.slow
def test_server_of_a_killed_command_ends_by_itself(home, tiny):
    with open(os.devnull, "w") as nowhere:
        process = begin_through_prefect(stdout=nowhere, stderr=nowhere)
    wait_until_running(home, process)
    (server,) = servers_of(process)
    process.kill()
    process.wait()
    server.wait(timeout=280)
