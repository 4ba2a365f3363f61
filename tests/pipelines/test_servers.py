"""What ``codedance flows`` hands to Prefect."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from codedance.pipelines.cli import servers
from codedance.pipelines.settings import Schedule

pytestmark = pytest.mark.filterwarnings("ignore")  # Prefect's own, none of ours


SERVER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print(child.pid, flush=True)
child.wait()
"""


def test_schedules_become_prefects_own():
    found = servers._schedules(
        [
            Schedule(cron="0 3 * * *", timezone="Europe/Berlin", slug="nightly"),
            Schedule(interval=3600, active=False, parameters={"preset": "smoke"}),
            Schedule(rrule="FREQ=DAILY"),
        ]
    )
    assert [(s.cron, s.interval, s.rrule) for s in found] == [
        ("0 3 * * *", None, None),
        (None, found[1].interval, None),
        (None, None, "FREQ=DAILY"),
    ]
    assert found[1].interval.total_seconds() == 3600
    assert (found[0].timezone, found[0].slug) == ("Europe/Berlin", "nightly")
    assert (found[1].active, found[1].parameters) == (False, {"preset": "smoke"})


def test_no_schedule_is_none():
    assert servers._schedules([]) is None


def test_servers_end_with_their_children_and_their_output_is_kept(home, tmp_path):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    script = tmp_path / "toyserver.py"
    script.write_text(SERVER)
    log = home.root / "logs" / "toyserver.log"
    command = [sys.executable, "-m", "toyserver"]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    try:
        with servers._servers(command):
            child = int(wait_for_line(log))
            assert is_alive(child)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    end = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_alive(child)


def wait_for_line(path, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError("the server never said anything")


def is_alive(number):
    """Whether a process runs; one that ended and was not collected yet does not."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_waiting_for_a_server_has_an_end():
    with pytest.raises(RuntimeError, match="did not answer"):
        servers._wait_for("http://127.0.0.1:9/health", seconds=0.5)
