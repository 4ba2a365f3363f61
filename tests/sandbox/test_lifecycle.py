"""Start and end of sessions, zygote and trainer; nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from codedance.sandbox import Outcome, SandboxError, open_sandbox

from .conftest import SMALL, open_isolated


def descendants(process_id):
    """Return all descendants of a process, including itself."""
    found = [process_id]
    for children in Path(f"/proc/{process_id}/task").glob("*/children"):
        for child in children.read_text().split():
            found += descendants(int(child))
    return found


def await_death(process_ids, seconds=60.0):
    """Wait until none of the processes is left, except zombies; return the remaining ones."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in process_ids if is_alive(pid)]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.01)
    return []


def is_alive(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(params=["full", "confined", "none"])
def own(request):
    """A separate sandbox that may be killed."""
    with open_isolated(request.param, SMALL, libraries=()) as sandbox:
        yield sandbox


def test_closing_leaves_no_process(own):
    sessions = [own.session() for _ in range(5)]
    assert all(session.run("x = 1").is_ok for session in sessions)
    processes = descendants(own.process_id)
    assert len(processes) >= 6
    own.close()
    assert [pid for pid in processes if is_alive(pid)] == []
    with pytest.raises(SandboxError):
        sessions[0].run("1")
    with pytest.raises(SandboxError, match="closed"):
        own.session()


def test_closing_a_session_ends_its_process(own):
    idle = descendants(own.process_id)
    session = own.session()
    session.run("1")
    (born,) = set(descendants(own.process_id)) - set(idle)
    session.close()
    assert await_death([born]) == []


def test_the_death_of_the_zygote_is_not_the_models_failure(own):
    with own.session(seed=1) as session, own.session(seed=2) as other:
        session.run("x = [1]")
        other.run("x = [2]")
        processes = descendants(own.process_id)
        os.kill(own.process_id, signal.SIGKILL)
        assert await_death(processes) == []
        assert session.run("x").stdout == "[1]\n"
        assert other.run("x").stdout == "[2]\n"


def test_the_death_of_a_session_before_its_first_block_is_not_the_blocks_failure(own):
    for seconds in (0.0, 0.002, 0.01, 0.1):
        with own.session() as session:
            time.sleep(seconds)
            session.kill()
            assert session.run("print(1)").stdout == "1\n"


def test_a_block_is_rerun_after_the_death_of_the_zygote(own):
    with own.session() as session:
        session.run("x = 1")
        killer = threading.Timer(0.3, os.kill, (own.process_id, signal.SIGKILL))
        killer.start()
        execution = session.run("import time; time.sleep(0.6); print(x)")
        killer.join()
    assert (execution.outcome, execution.stdout) == (Outcome.OK, "1\n")


def test_the_death_of_the_trainer_ends_everything(tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(
        "import os, threading\n"
        "from codedance.sandbox import open_sandbox\n"
        "def work():\n"
        "    sandbox = open_sandbox('local', libraries=())\n"
        "    sessions = [sandbox.session() for _ in range(3)]\n"
        "    for session in sessions: session.run('1')\n"
        "    print(sandbox.process_id, flush=True)\n"
        "    threading.Event().wait()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "threading.Event().wait()\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as trainer:
        assert trainer.stdout is not None
        processes = descendants(int(trainer.stdout.readline()))
        trainer.kill()
    assert len(processes) >= 4
    assert await_death(processes) == []


def test_an_interrupt_from_the_terminal_reaches_only_the_trainer(own):
    """Ctrl-C is sent to the terminal's process group, which contains no process of the sandbox."""
    with own.session() as session:
        session.run("x = 1")
        groups = {os.getpgid(pid) for pid in descendants(own.process_id)}
        assert os.getpgrp() not in groups
        assert session.run("x").stdout == "1\n"


def test_an_interrupt_within_a_block_does_not_mix_up_replies(full):
    """The pending reply must not be returned for the next block."""

    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with full.session() as session:
            session.run("x = 1")
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(Interrupted):
                session.run("import time; time.sleep(0.3); print('late')")
            assert session.run("print(x)").stdout == "1\n"
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_a_session_is_the_first_victim_of_the_oom_killer(full):
    idle = descendants(full.process_id)
    with full.session() as session:
        session.run("1")
        (born,) = set(descendants(full.process_id)) - set(idle)
        assert Path(f"/proc/{born}/oom_score_adj").read_text() == "1000\n"
        assert Path(f"/proc/{full.process_id}/oom_score_adj").read_text() != "1000\n"


def test_a_sandbox_outlives_the_thread_that_opened_it():
    opened = []
    opener = threading.Thread(target=lambda: opened.append(open_sandbox("local", libraries=())))
    opener.start()
    opener.join()
    with opened[0] as sandbox:
        first = sandbox.process_id
        time.sleep(0.1)
        with sandbox.session() as session:
            assert session.run("print(1)").stdout == "1\n"
        assert sandbox.process_id == first


@pytest.mark.slow
def test_hundreds_of_sessions_have_separate_states(own):
    def live(number):
        with own.session(seed=number) as session:
            session.run(f"x = {number}")
            doubled = session.run("print(x * 2)").stdout
            session.run("missing")
            return doubled, session.run("print(x)").stdout

    with ThreadPoolExecutor(16) as threads:
        seen = list(threads.map(live, range(120)))
    assert seen == [(f"{2 * number}\n", f"{number}\n") for number in range(120)]


def test_a_hundred_sessions_can_be_open_at_once(own):
    sessions = [own.session() for _ in range(100)]
    for number, session in enumerate(sessions):
        session.run(f"x = {number}")
    seen = [session.run("x").stdout for session in sessions]
    for session in sessions:
        session.close()
    assert seen == [f"{number}\n" for number in range(100)]


def test_no_descriptor_is_leaked(own):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    with own.session() as session:
        session.run("1")
    before = descriptors()
    for _ in range(10):
        with own.session() as session:
            session.run("1")
            session.run("missing")
            session.run("1")
    assert descriptors() == before


def test_a_forked_child_cannot_disturb_its_parents_sessions(own):
    with own.session() as session:
        session.run("x = 1")
        child = os.fork()
        if child == 0:
            try:
                session.run("x = 2")
            except SandboxError:
                session.close()
                own.close()
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert session.run("x").stdout == "1\n"


def test_closing_the_sandbox_ends_a_block_that_runs(own):
    verdicts = []

    def run():
        session = own.session()
        try:
            verdicts.append(session.run("import time; time.sleep(60)"))
        except SandboxError as error:
            verdicts.append(error)

    runner = threading.Thread(target=run)
    runner.start()
    time.sleep(0.3)
    own.close()
    runner.join(timeout=60.0)
    assert not runner.is_alive()
    assert isinstance(verdicts[0], SandboxError)
