"""A real Ctrl-C in a real process: it stops soon, says how to go on, and does go on."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time

COMMAND = [
    sys.executable,
    "-c",
    "from codedance.pipelines.cli import main; main()",
    *("curate", "--preset", "smoke", "--no-prefect"),
]


def status_of_curation(home):
    """Read the lineage from outside; None while there is no row yet."""
    path = home.root / "store.db"
    if not path.exists():
        return None
    connection = sqlite3.connect(path)
    try:
        row = connection.execute("SELECT status FROM lineage WHERE stage = 'curate'").fetchone()
    except sqlite3.OperationalError:  # the tables are being made
        return None
    finally:
        connection.close()
    return row and row[0]


def wait_until_running(home, process, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if status_of_curation(home) == "running":
            return
        time.sleep(0.02)
    raise AssertionError(f"curation never ran: {process.communicate()}")


def test_interrupted_command_goes_on_when_given_again(home, tiny):
    process = subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    wait_until_running(home, process)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=90)
    assert process.returncode == 130, error
    assert "goes on where it was" in out
    assert "Traceback" not in error
    assert status_of_curation(home) == "interrupted"

    again = subprocess.run(COMMAND, capture_output=True, text=True, timeout=120, check=True)
    assert "curate: going on with curate-" in again.stderr
    assert status_of_curation(home) == "finished"
