"""A wheel that is built and installed elsewhere works: it contains everything it needs."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEPT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests", "docs")
WHERE = "import codedance.pipelines, json; print(json.dumps(list(codedance.pipelines.__path__)))"


def run(*command: str, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and this one's packages, but without this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=KEPT)  # building writes into the folder
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(sys.executable, "-m", "pip", *build, "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("codedance-*.whl")
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    # A path in a .pth file adds the packages there, but not that folder's own .pth files:
    # the editable install of this checkout is not found by it.
    others = [*site.getsitepackages(), sysconfig.get_path("purelib")]
    (packages / "others.pth").write_text("\n".join(dict.fromkeys(others)) + "\n")
    target = ("install", "--quiet", "--no-deps", "--no-index", "--prefix", str(environment))
    run(sys.executable, "-m", "pip", *target, "--ignore-installed", str(wheel))
    assert (packages / "codedance").is_dir()
    return python


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_installed_wheel_runs_its_commands(installed: Path, tmp_path: Path):
    own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    options = {"cwd": tmp_path, "env": {**own, "CODEDANCE_DIR": str(tmp_path / "home")}}
    (place,) = json.loads(run(str(installed), "-c", WHERE, **options))
    assert Path(place).is_relative_to(installed.parents[1])
    codedance = str(installed.with_name("codedance"))
    assert "Exit codes" in run(codedance, "--help", **options)
    document = run(codedance, "evaluate", "--policy", "nano", "--limit", "2", "--json", **options)
    assert json.loads(document)["cells"]  # the checkpoint, the suite's sources, the migrations
    assert "report.html" in run(codedance, "report", json.loads(document)["run"], **options)
    assert "open " in run(codedance, "view", json.loads(document)["run"], **options)
    assert "the store is whole" in run(codedance, "store", "verify", **options)
    assert "quick" in run(str(installed), "-c", PRESETS, **options)


PRESETS = (
    "from codedance.pipelines.config.flows_file import load_flows_file; "
    "print(load_flows_file().presets)"
)
