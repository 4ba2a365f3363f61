"""``--workers`` bounds the cores of the process that works, and of what it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import torch
from codedance.pipelines.cli.cores import use_workers
from threadpoolctl import threadpool_info

from .makers import make_picture

WORKING = """
import atexit, json, os, sys

def tell():
    import torch
    from codedance.sandbox.capacity import core_count
    from threadpoolctl import threadpool_info

    pools = {one["internal_api"]: one["num_threads"] for one in threadpool_info()}
    told = {"torch": torch.get_num_threads(), "pools": pools, "sandbox": core_count()}
    print("CORES " + json.dumps(told), file=sys.stderr)

atexit.register(tell)
from codedance.pipelines.cli import main
main()
"""


def test_the_process_that_works_uses_as_many_cores_as_it_was_told(home, tmp_path):
    make_picture().save(tmp_path / "a.png")
    row = {"id": "a", "question": "Q?", "answer": "3", "split": "test", "image": "a.png"}
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    kept = {name: value for name, value in os.environ.items() if "_NUM_THREADS" not in name}
    arguments = ["evaluate", "--policy", "random", "--suite", "one.jsonl", "--limit", "1"]
    done = subprocess.run(
        [sys.executable, "-c", WORKING, *arguments, "--workers", "1"],
        cwd=tmp_path,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stderr.rpartition("CORES ")[2].splitlines()[0])
    assert (told["torch"], told["sandbox"]) == (1, 1)
    assert set(told["pools"].values()) == {1}
    assert "openblas" in told["pools"]


def test_libraries_that_are_loaded_already_are_told_directly():
    before = torch.get_num_threads()
    wanted = before + 1
    try:
        assert use_workers(wanted) == wanted
        assert torch.get_num_threads() == wanted
        assert {one["num_threads"] for one in threadpool_info()} == {wanted}
        assert os.environ["OMP_NUM_THREADS"] == os.environ["CODEDANCE_CORES"] == str(wanted)
    finally:
        use_workers(before)
    assert torch.get_num_threads() == before


def test_no_option_changes_nothing():
    before = dict(os.environ)
    assert use_workers(None) is None
    assert dict(os.environ) == before
