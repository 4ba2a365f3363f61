"""Commands with the same request that begin at the same instant share one pipeline run."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.store.store import open_store


def test_equal_requests_begun_at_the_same_instant_make_one_pipeline_run(home, tiny):
    opened, barrier = [], threading.Barrier(4)

    def command():
        with open_session(home, track=False) as session:
            barrier.wait()
            opened.append(open_pipeline(session, RunRequest("smoke")).id)

    threads = [threading.Thread(target=command) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open_store(home) as store:
        (run,) = store.lineage.find(stage="pipeline")
    assert opened == [run.id] * 4


OPENS = """
import sys
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.session import open_session
with open_session(track=False) as session:
    print("ready", flush=True)
    sys.stdin.readline()
    print(open_pipeline(session, RunRequest("smoke", seed=1, fresh=True)).id)
"""


@pytest.mark.slow
def test_two_processes_that_ask_for_a_fresh_run_at_once_share_it(home, tiny):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", OPENS], **pipes) for _ in range(2)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        first, second = (process.communicate(timeout=120)[0] for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert first == second
    with open_store(home) as store:
        (run,) = store.lineage.find(stage="pipeline")
    assert first == f"{run.id}\n"
