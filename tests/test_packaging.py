"""The package contains all files of the repository that it needs, and imports stay light."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("sandbox", "envs", "policies", "pipelines")
MOST_FILES = 15
HEAVY = {"torch", "transformers", "prefect", "mlflow", "sklearn", "skimage", "cv2", "matplotlib"}
HEAVY |= {"scipy", "jinja2", "fastapi", "uvicorn", "openai"}


def test_every_folder_with_code_is_listed_as_a_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    listed = set(project["tool"]["setuptools"]["packages"])
    assert listed == {"codedance." + folder.replace("/", ".") for folder in folders}


def test_every_file_read_at_run_time_is_package_data():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["package-data"]
    folders = [folder for room in ROOMS for folder in (ROOT / room).rglob("assets")]
    packages = ["codedance." + ".".join(f.parent.relative_to(ROOT).parts) for f in folders]
    assert len(packages) == 3
    assert all("assets/*" in listed[package] for package in packages)


def test_no_folder_has_too_many_files():
    counts = {
        folder.relative_to(ROOT).as_posix(): len([*folder.glob("*.py")])
        - len([*folder.glob("__init__.py")])
        for room in ROOMS
        for folder in (ROOT / room, *(ROOT / room).rglob("*"))
        if folder.is_dir()
    }
    del counts["sandbox/worker"]  # copied into the sandbox as one flat folder
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("room", ["sandbox", "envs", "policies", "pipelines", "pipelines.cli"])
def test_importing_a_room_imports_nothing_heavy(room):
    code = f"import sys, codedance.{room}; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_help_imports_neither_torch_nor_prefect_nor_mlflow():
    code = (
        "import sys\nfrom codedance.pipelines.cli import main\nsys.argv = ['codedance', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n"
        f"    print('HEAVY', *sorted(set(sys.modules) & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "HEAVY"
