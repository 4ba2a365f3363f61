"""``--workers`` limits the cores of the working process and of its children."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from codedance.pipelines.cli.cores import use_workers
from threadpoolctl import threadpool_info

from ..makers import make_picture

WORKING = """
import atexit, json, os, sys

def print_limits():
    import torch
    from codedance.sandbox.capacity import core_count
    from threadpoolctl import threadpool_info

    pools = {one["internal_api"]: one["num_threads"] for one in threadpool_info()}
    limits = {"torch": torch.get_num_threads(), "pools": pools, "sandbox": core_count()}
    print("CORES " + json.dumps(limits), file=sys.stderr)

atexit.register(print_limits)
from codedance.pipelines.cli import main
main()
"""


@pytest.mark.slow
def test_the_working_process_uses_the_given_number_of_cores(home, tmp_path):
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
    limits = json.loads(done.stderr.rpartition("CORES ")[2].splitlines()[0])
    assert (limits["torch"], limits["sandbox"]) == (1, 1)
    assert set(limits["pools"].values()) == {1}
    assert "openblas" in limits["pools"]


def test_libraries_that_are_already_loaded_are_configured():
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
