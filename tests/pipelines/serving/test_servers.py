"""Servers started by us: restarted, ended with their children, with their output in files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from codedance.pipelines.runs.processes import (
    Guard,
    Service,
    ServiceError,
    is_free,
    running,
    wait_for,
)

SERVER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def toy(tmp_path):
    script = tmp_path / "toy.py"
    script.write_text(SERVER)
    return Service("the toy", [sys.executable, str(script)], tmp_path / "logs" / "toy.log")


def wait_until(claim, seconds=30):
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "the condition never became true"
        time.sleep(0.02)


def lines(service):
    return service.log.read_text().splitlines() if service.log.exists() else []


def is_alive(number):
    """Return whether a process is running; zombies are not."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_servers_end_with_their_children_and_their_output_is_stored(toy):
    with running(toy):
        wait_until(lambda: lines(toy))
        child = int(lines(toy)[0])
        assert is_alive(child)
        assert [one.pid for one in toy.children()] == [child]
    wait_until(lambda: not is_alive(child))


def test_a_killed_server_is_restarted_and_reported(toy):
    said = []
    with running(toy):
        wait_until(lambda: lines(toy))
        children = [int(lines(toy)[0])]
        toy.process.kill()
        wait_until(lambda: toy.revive(said.append) or (toy.is_running and len(lines(toy)) == 2))
        children.append(int(lines(toy)[1]))
    os.kill(children[0], signal.SIGKILL)  # orphaned when its parent was killed
    wait_until(lambda: not is_alive(children[1]))
    assert said == [f"the toy died (killed by SIGKILL) and is being restarted; see {toy.log}"]


STARTER = """
import sys
from pathlib import Path
from codedance.pipelines.runs.processes import Service
service = Service("the toy", [sys.executable, sys.argv[1]], Path(sys.argv[2]))
service.start()
print(service.process.pid, flush=True)
sys.stdin.read()
"""


def test_servers_and_their_children_end_with_a_killed_command(toy):
    command = [sys.executable, "-c", STARTER, toy.command[1], str(toy.log)]
    starter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    server = int(starter.stdout.readline())
    wait_until(lambda: lines(toy))
    child = int(lines(toy)[0])
    assert is_alive(server)
    assert is_alive(child)
    starter.kill()
    starter.communicate()
    wait_until(lambda: not is_alive(server))
    wait_until(lambda: not is_alive(child))


def test_a_dismissed_guard_kills_nothing(toy):
    toy.start()
    guard = Guard(toy.process.pid)
    guard.dismiss()
    assert toy.is_running
    toy.end()
    assert not toy.is_running


def test_waiting_for_a_dead_server_ends_with_its_last_output(tmp_path):
    code = "print('no such database'); raise SystemExit(3)"
    service = Service("the server", [sys.executable, "-c", code], tmp_path / "server.log")
    with (
        running(service),
        pytest.raises(ServiceError, match=r"the server died[^$]*no such database"),
    ):
        wait_for("http://127.0.0.1:9/health", service, seconds=60)


def test_waiting_for_a_server_is_bounded(toy):
    with running(toy), pytest.raises(ServiceError, match="did not answer within 0 s"):
        wait_for("http://127.0.0.1:9/health", toy, seconds=0.3)


def test_a_port_with_a_listener_is_not_free():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)
