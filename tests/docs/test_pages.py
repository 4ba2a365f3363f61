"""Runs every block of code in the README and the pages, in order, as a reader would.

A page's blocks run in one temporary folder whose flows.yaml has small versions of all presets;
Python blocks share their names. Blocks that install something, start servers, need a GPU or take
long are marked in the page with the reason; those are only parsed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from codedance.pipelines.config.flows_file import load_flows_file

from .blocks import read_blocks
from .parser import OURS, check

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "experiments").glob("*.md"),
    )
    if read_blocks(path.read_text(encoding="utf-8"))
)
SMALL = {
    "suite": "nano",
    "max_new_tokens": 12,
    "curate": {"candidates": 40, "known": 30, "weak_samples": 2, "strong_samples": 1},
    "sft": {"steps": 3, "batch_size": 4, "warmup_steps": 1, "save_every": 2},
    "grpo": {"steps": 2, "tasks_per_step": 2, "num_generations": 2, "save_every": 1},
    "evaluate": {"limit": 12, "batch_size": 12, "traces": 1},
}
INSTALLS = ("make ", "pip install", "source ")
"""Commands that change the machine; the README shows them without a mark."""
PROGRAM = """#!{python}
import sys
from codedance.pipelines.cli import main
sys.argv[0] = "codedance"
main()
"""


def blocks_of(page):
    return read_blocks((ROOT / page).read_text(encoding="utf-8"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Working folder with small presets, and a program ``codedance`` on the path."""
    monkeypatch.chdir(tmp_path)
    presets = dict.fromkeys(("smoke", "quick", "full"), SMALL)
    (tmp_path / "flows.yaml").write_text(yaml.safe_dump({"presets": presets}))
    program = tmp_path / "bin" / "codedance"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    return tmp_path


def environment(place):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "PREFECT_", "CODEDANCE_"))
    }
    path = f"{place / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "DO_NOT_TRACK": "true"}


def run(command, place, *, expected=0):
    done = subprocess.run(
        command,
        cwd=place,
        env=environment(place),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def write(block, place):
    """Write a block to the file it names; a flows.yaml keeps the small presets it does not name."""
    path = place / block.file
    path.write_text(block.text, encoding="utf-8")
    if path.name == "flows.yaml":
        load_flows_file(path)  # checks the page's version
        content = yaml.safe_load(block.text)
        presets = {
            name: {**SMALL, **{k: v for k, v in preset.items() if k == "suite"}}
            for name, preset in content["presets"].items()
        }
        rest = dict.fromkeys({"smoke", "quick"} - set(presets), SMALL)
        path.write_text(yaml.safe_dump({**content, "presets": presets | rest}))


def run_commands(block, place):
    for number, line in enumerate(block.commands, 1):
        is_last = number == len(block.commands)
        if line.startswith(INSTALLS):
            continue
        if line.startswith(OURS):
            check(line)
        run(["bash", "-c", line], place, expected=block.exit_code if is_last else 0)


def run_python(texts, place):
    """Rerun a page's Python so far: it may need the files of a later block."""
    script = place / "page.py"
    script.write_text("\n".join(texts), encoding="utf-8")
    run([sys.executable, str(script)], place)


def test_all_pages_are_found():
    assert "README.md" in PAGES
    assert "docs/tutorial.md" in PAGES


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_well_formed_and_every_command_is_valid(page):
    for block in blocks_of(page):
        where = f"{page}:{block.line}"
        assert block.language in ("python", "console", "bash", "yaml", "json", "text"), where
        assert block.commands or block.language not in ("console", "bash"), f"{where}: no `$ `"
        if block.language == "python":
            compile(block.text, where, "exec")
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "json":
            assert [json.loads(line) for line in block.text.splitlines()], where
        for line in block.commands if block.language in ("console", "bash") else ():
            if line.startswith(OURS):
                check(line)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_runs(page, place):
    pending = []
    for block in blocks_of(page):
        if block.file is not None:
            write(block, place)
        if block.not_run is not None:
            continue
        if block.language in ("console", "bash"):
            if pending:
                run_python(pending, place)
                pending = []
            run_commands(block, place)
        elif block.language == "python" and block.file is None:
            pending.append(block.text)
    if pending:
        run_python(pending, place)
