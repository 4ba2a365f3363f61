"""Commands as separate processes, as users type them: those that no other test starts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from codedance.pipelines.config.home import Home
from codedance.pipelines.store.maintenance.verify import verify
from codedance.pipelines.store.store import open_store
from codedance.sandbox import SandboxError, open_sandbox
from codedance.sandbox.docker.engine import Engine

from ..tiny_runs import write_tiny

pytestmark = pytest.mark.slow
PROGRAM = (sys.executable, "-c", "from codedance.pipelines.cli import main; main()")


BASELINES = (sys.executable, "-m", "experiments.baselines")
ROOT = Path(__file__).parents[3]


def start(*arguments, program=PROGRAM, **options):
    return subprocess.Popen(
        [*program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def run(*arguments, **options):
    """Run a command to its end; return its output."""
    process = start(*arguments, **options)
    out, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    return out


def test_probe_withholds_replies_from_a_policy_that_calls_the_tool(home, tmp_path):
    report = json.loads(run("probe", "--policy", "oracle", "--limit", "7", "--json", cwd=tmp_path))
    assert (report["policy"], report["tasks"]) == ("oracle", 7)
    assert 0.0 < report["figures"]["probe/withheld/dependence"] <= 1.0  # wrong without replies


def test_scale_measures_every_method_and_draws_them(home, tmp_path):
    options = ("--limit", "3", "--samples", "2")
    points = json.loads(run("scale", "--policy", "oracle", *options, "--json", cwd=tmp_path))
    assert {point["method"] for point in points} >= {"turns", "majority"}
    (most_turns,) = [p for p in points if p["method"] == "turns" and p["amount"] == 6]
    assert (most_turns["accuracy"], most_turns["tasks"]) == (1.0, 3)
    assert "<svg" in (home.reports / "scale-oracle.html").read_text()


def test_baselines_trains_evaluates_and_resumes(home):
    options = ("--learn-from", "8", "--limit", "7", "--steps", "1", "--json")
    where = {"program": BASELINES, "cwd": ROOT}
    rows = json.loads(run(*options, **where))
    assert rows
    models = {path: path.read_bytes() for path in home.root.rglob("*.safetensors")}
    assert len(models) >= 2
    assert json.loads(run(*options, **where)) == rows
    assert {path: path.read_bytes() for path in home.root.rglob("*.safetensors")} == models


def test_a_served_model_replies_and_ends_by_ctrl_c(home, tmp_path):
    server = start("serve", "model", "nano", "--port", "0", cwd=tmp_path)
    try:
        address = re.search(r"http://[\w.:]+", server.stdout.readline()).group(0)
        message = {"role": "user", "content": "How many red discs are there?"}
        body = {"model": "nano", "messages": [message], "max_tokens": 4}
        answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=120.0)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["role"] == "assistant"
    finally:
        server.send_signal(signal.SIGINT)
        _, error = server.communicate()
    assert (server.returncode, "Traceback" in error) == (0, False), error


@pytest.mark.timeout(900)
def test_sandbox_build_builds_an_image_that_runs_code(home, tmp_path):
    try:
        Engine().close()
    except SandboxError as error:
        pytest.skip(f"{error}: no Docker engine for the tests")
    tag = f"codedance-command-test-{os.getpid()}"
    options = ("--libraries", "numpy,PIL", "--tag", tag, "--json")
    built = json.loads(run("sandbox", "build", *options, cwd=tmp_path))
    try:
        assert tag in built["name"]
        with (
            open_sandbox("docker", image=tag, libraries=("numpy",)) as sandbox,
            sandbox.session() as session,
        ):
            assert session.run("import numpy; print(numpy.arange(3).sum())").stdout == "3\n"
    finally:
        subprocess.run(["docker", "rmi", "--force", tag], capture_output=True, check=False)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_workers_on_one_store_lose_nothing(home, tmp_path, database, request, way):
    """Two machines, each with its own folder, share the store and its images."""
    shared = {**os.environ, "CODEDANCE_IMAGES": str(tmp_path / "images")}
    shared["CODEDANCE_STORE_URL"] = (
        f"sqlite:///{tmp_path / 'store.db'}"
        if database == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
    workers = []
    for seed in ("0", "1"):
        folder = tmp_path / f"machine-{seed}"
        folder.mkdir()
        own = {**shared, "CODEDANCE_DIR": str(folder / "home")}
        command = ("curate", "--preset", "smoke", "--seed", seed, *way, "--json")
        workers.append(start(*command, cwd=write_tiny(folder), env=own))
    documents = []
    for worker in workers:
        out, error = worker.communicate()
        assert worker.returncode == 0, error[-3000:]
        documents.append(json.loads(out))
    os.environ |= {name: shared[name] for name in ("CODEDANCE_IMAGES", "CODEDANCE_STORE_URL")}
    with open_store(Home(tmp_path / "machine-0" / "home")) as store:
        for one in documents:
            run_of = store.lineage.get(one["run"])
            assert run_of.is_finished
            assert len(store.curation(run_of.id)) == run_of.outputs["candidates"] == 48
            assert store.episodes(run_of.id)
        verdict = verify(store)
    assert verdict.is_whole, verdict.findings
    assert verdict.checked["runs"] == 4
    assert verdict.unknown == {}
