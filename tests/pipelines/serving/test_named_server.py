"""A Prefect server that the user names and that does not answer is one line, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from codedance.pipelines.cli.exit_codes import FAILED, code_of
from codedance.pipelines.runs.processes import free_port
from codedance.pipelines.serving.named_server import (
    PrefectAwayError,
    check_named_server,
    failures_reported,
)
from codedance.pipelines.serving.own_server import own_server
from codedance.pipelines.store.store import open_store
from prefect.settings import PREFECT_API_URL, temporary_settings

pytestmark = pytest.mark.filterwarnings("ignore")  # Prefect's own
PROGRAM = "from codedance.pipelines.cli import main; main()"


def test_a_command_says_that_the_server_is_down_and_what_to_do(home, monkeypatch):
    place = f"127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", f"http://me:secret@{place}")
    with (
        temporary_settings({PREFECT_API_URL: f"http://me:secret@{place}"}),
        pytest.raises(PrefectAwayError) as raised,
        own_server(home, lambda: None, print),
    ):
        pass
    said = str(raised.value)
    assert said.startswith(f"the Prefect server at http://{place} does not answer (")
    assert said.endswith("): start it, unset PREFECT_API_URL or add --no-prefect")
    assert code_of(raised.value) == FAILED


def test_without_a_named_server_there_is_nothing_to_check():
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        check_named_server()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["deploy", "serve"])
def test_flows_need_the_server_that_is_named(home, tmp_path, command):
    place = f"127.0.0.1:{free_port()}/api"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "flows", command],
        env={**os.environ, "PREFECT_API_URL": f"http://me:secret@{place}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (FAILED, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"codedance: the Prefect server at http://{place} does not answer (")
    assert line.endswith("): start it or unset PREFECT_API_URL")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["answers 500", "is gone"])
def test_a_server_that_fails_during_a_run_is_one_line_and_completed_work_is_kept(home, tiny, how):
    program = Path(__file__).with_name("failing_prefect.py")
    done = subprocess.run(
        [sys.executable, str(program), how], capture_output=True, text=True, check=False
    )
    assert done.returncode == FAILED, done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("codedance: the Prefect server at http://127.0.0.1:")
    assert "failed during the run (" in line
    assert line.endswith("repeat the command, which resumes the run, or add --no-prefect")
    with open_store(home) as store:
        runs = {run.stage: run for run in store.lineage.find()}
    assert {stage: run.status for stage, run in runs.items()} == {
        "curate": "finished",
        "pipeline": "failed",
    }
    assert "the Prefect server at" in runs["pipeline"].error


def test_an_error_of_another_server_is_not_prefects():
    def answer(url):
        request = httpx.Request("GET", url)
        return httpx.HTTPStatusError("", request=request, response=httpx.Response(500))

    with temporary_settings({PREFECT_API_URL: "http://me:secret@prefect:4200/api"}):
        for error in (answer("http://hub:4200/model"), httpx.ReadError("cut"), KeyError("a")):
            with pytest.raises(type(error)), failures_reported():
                raise error
        words = r"at http://prefect:4200/api .* \(HTTP 500"
        with pytest.raises(PrefectAwayError, match=words), failures_reported():
            raise answer("http://prefect:4200/api/flows")
