"""One training at a time on a host: the next one starts when the running one ends or dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from codedance.pipelines.runs.context import StageInterrupted, Stop
from codedance.pipelines.runs.turns import lock_folder, training_turn

HOLDER = """
import sys, time
from pathlib import Path
from codedance.pipelines.runs.turns import training_turn
with training_turn("grpo", fallback=Path("unused"), say=print, check=lambda: None):
    print("at work", flush=True)
    sys.stdin.read()
"""


def turn(stage="sft", *, say=lambda text: None, check=lambda: None):
    return training_turn(stage, fallback=None, say=say, check=check)


@pytest.fixture
def holder():
    """Another process with a training."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stdout.readline() == "at work\n"
    yield process
    process.kill()
    process.communicate()


def test_a_killed_training_is_not_waited_for(holder):
    holder.kill()
    holder.wait()
    with turn(say=pytest.fail):
        pass


def test_a_living_training_is_waited_for_and_named_until_it_is_killed(holder):
    said, order = [], []

    def say(text):
        said.append(text)
        order.append("waits")
        holder.kill()

    with turn(say=say):
        order.append("trains")
    assert order == ["waits", "trains"]
    assert said == [
        "sft: waiting for its turn, one training at a time on this host (running: process "
        f"{holder.pid}); CODEDANCE_TRAININGS=2 allows one more"
    ]


def test_a_stopped_training_keeps_its_slot_and_is_named_with_what_to_do(holder):
    holder.send_signal(signal.SIGSTOP)
    os.waitpid(holder.pid, os.WUNTRACED)
    said = []

    def say(text):
        said.append(text)
        holder.send_signal(signal.SIGKILL)

    with turn(say=say):
        pass
    (text,) = said
    assert f"(running: process {holder.pid}, stopped); CODEDANCE_TRAININGS=2" in text
    assert text.endswith(
        f"; `kill -CONT {holder.pid}` continues what is stopped, `kill -9 {holder.pid}` ends it"
    )


def test_waiting_for_a_turn_can_be_stopped(holder):
    stop = Stop()
    with (
        pytest.raises(StageInterrupted),
        turn("grpo", say=lambda _: stop.request(), check=stop.check),
    ):
        pytest.fail("two trainings at once")
    assert holder.poll() is None


def test_two_trainings_of_one_process_take_turns(monkeypatch):
    order, waits = [], threading.Event()

    def second():
        with turn("grpo", say=lambda _: waits.set()):
            order.append("second")

    with turn():
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(60)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_more_concurrent_trainings_can_be_configured(holder, monkeypatch):
    monkeypatch.setenv("CODEDANCE_TRAININGS", "2")
    with turn(say=pytest.fail):
        pass


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "99999"])
def test_an_invalid_number_of_trainings_is_rejected(monkeypatch, value):
    monkeypatch.setenv("CODEDANCE_TRAININGS", value)
    with pytest.raises(ValueError, match="CODEDANCE_TRAININGS must be a positive number"), turn():
        pass


def test_the_locks_belong_to_one_user(tmp_path, monkeypatch):
    monkeypatch.delenv("CODEDANCE_LOCKS")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    own = tmp_path / f"codedance-{os.geteuid()}"
    assert lock_folder(tmp_path / "home") == own
    assert own.stat().st_mode & 0o777 == 0o700
    own.rmdir()
    own.symlink_to("/")  # an attack by another user
    assert lock_folder(tmp_path / "home") == tmp_path / "home"
