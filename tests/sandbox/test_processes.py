"""Processes and threads of the user: sessions leave room for the trainer and further sessions."""

import errno
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from codedance.sandbox import SandboxError
from codedance.sandbox.host import zygote as host
from codedance.sandbox.worker.processes import Shares, find_shares

from .conftest import has_namespaces


@pytest.fixture
def cgroup(tmp_path):
    (tmp_path / "pids.max").write_text("1000\n")
    (tmp_path / "pids.current").write_text("200\n")
    return str(tmp_path)


def test_sessions_get_half_of_what_is_free_and_their_processes_three_quarters(monkeypatch, cgroup):
    monkeypatch.setattr(os, "geteuid", lambda: 54_322)  # a user without processes
    monkeypatch.setattr(resource, "getrlimit", lambda _: (400, 400))
    assert find_shares(()) == Shares(user=300, sessions=200)
    assert find_shares((cgroup,)) == Shares(user=300, sessions=200)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5_000, 5_000))
    assert find_shares((cgroup,)) == Shares(user=600, sessions=400)


def test_the_processes_that_exist_are_not_free(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 54_322)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (400, 400))
    monkeypatch.setattr("codedance.sandbox.worker.processes._threads_of_user", lambda: 360)
    assert find_shares(()) == Shares(user=390, sessions=20)
    monkeypatch.setattr("codedance.sandbox.worker.processes._threads_of_user", lambda: 500)
    assert find_shares(()) == Shares(user=500, sessions=0)


def test_the_limit_of_a_user_does_not_bound_root(monkeypatch, cgroup):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 10))
    assert find_shares(()) == Shares()
    assert find_shares((cgroup,)) == Shares(user=None, sessions=400)


def test_without_a_limit_there_is_no_share(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 54_322)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    (tmp_path / "pids.max").write_text("max\n")
    (tmp_path / "pids.current").write_text("200\n")
    assert find_shares((str(tmp_path),)) == Shares()


class Worker:
    """A zygote's process that cannot fork, the given number of times."""

    process_id = 0

    def __init__(self, failures):
        self.control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.failures = failures
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        self._theirs.recv(65_536)
        answer = {"tier": "full", "isolation": "", "folders": []}
        self._theirs.send(json.dumps(answer).encode())
        while socket.recv_fds(self._theirs, 65_536, 9)[0]:
            self.failures -= 1
            if self.failures < 0:
                socket.send_fds(self._theirs, [b"{}"], [0])
            else:
                error = {"error": "fork failed: no process", "errno": errno.EAGAIN}
                self._theirs.send(json.dumps(error).encode())

    def words(self):
        return ""

    def end(self):
        self._thread.join()
        self._theirs.close()


@pytest.fixture
def opened(monkeypatch):
    monkeypatch.setattr(host, "_RETRY_SECONDS", (0.0, 0.0))
    zygotes = []

    def start(failures):
        plan = host.ZygotePlan(None, (), host.Limits(), "full")
        zygotes.append(host.Zygote(plan, Worker(failures)))
        return zygotes[-1]

    yield start
    for one in zygotes:
        one.close()


def test_a_session_for_which_no_process_is_left_is_tried_again(opened):
    handles = opened(failures=2).open_session(0, [], [])
    handles.connection.close()
    os.close(handles.process_fd)


def test_a_session_for_which_no_process_is_left_names_the_limit(opened):
    with pytest.raises(SandboxError, match=r"ulimit -u.*pids\.max.*lower Limits\.threads"):
        opened(failures=3).open_session(0, [], [])


CROWD = """
import threading, time
from codedance.sandbox import Limits, open_sandbox
CODE = '''import threading, time
count = 0
try:
    for count in range(100): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
except RuntimeError: pass
print(count)'''
with open_sandbox("local", limits=Limits(memory_mb=256), libraries=()) as sandbox:
    sessions = [sandbox.session() for _ in range(8)]
    print(sum(int(session.run(CODE).stdout) for session in sessions))
    threads = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(8)]
    for thread in threads: thread.start()
    print(len(threads), sandbox.tier.partition(":")[0])
    for session in sessions: session.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without processes")
@pytest.mark.skipif(not has_namespaces(), reason="no user namespaces for full isolation here")
def test_threads_of_sessions_leave_an_unprivileged_trainer_room_for_its_own():
    """At most 60 processes: 8 sessions of up to 15 threads each would use them up."""
    command = [sys.executable, "-c", CROWD]
    start = "import resource, sys; resource.setrlimit(resource.RLIMIT_NPROC, (60, 60))\n"
    start += (
        "from sandbox.escapes.places import go_on_as_nobody\ngo_on_as_nobody(sys.argv[1:], 54_321)"
    )
    done = subprocess.run(
        [sys.executable, "-c", start, *command],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    threads, own = done.stdout.splitlines()
    assert int(threads) < 30
    assert own == "8 full"
