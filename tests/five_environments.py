"""Install with five conflicting sets of pins, and compare the digests of 100 tasks.

Each environment is a venv with ``codedance[sandbox]`` as a wheel of this checkout and its pins, in
which `played_tasks` is run. Needs a package index, about 4 GB of disk and some minutes:

    make test-environments
    python tests/five_environments.py --folder KEEP --python python3.12 --python python3.13
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tests" / "played_tasks.py"
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "numpy 1.26, the low ends": (
        *("numpy==1.26.4", "pillow==11.0.0", "gymnasium==1.2.0", "msgpack==1.0.8"),
        *("scipy==1.13.1", "opencv-python-headless==4.10.0.84", "pandas==2.2.3"),
        *("scikit-image==0.24.0", "matplotlib==3.9.4", "shapely==2.0.6", "sympy==1.13.3"),
    ),
    "transformers 4": ("transformers==4.57.1", "numpy==2.1.3", "pillow==11.3.0"),
    "fastapi 0.95, pydantic 1": ("fastapi==0.95.2", "pydantic==1.10.24", "numpy==2.2.6"),
    "gymnasium 1.2": ("gymnasium==1.2.0", "pillow==12.0.0", "opencv-python-headless==4.12.0.88"),
    "the newest of all": (),
}
SHOWN = ("numpy", "pillow", "gymnasium", "opencv-python-headless")


def main() -> int:
    """Build the environments, play in each, and print the table; return 1 if a digest differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the environments here")
    parser.add_argument("--python", action="append", help="interpreters to use in turn")
    parser.add_argument("--jobs", type=int, default=2, help="environments at a time")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (chosen.folder or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        wheel = build_wheel(folder)
        pythons = chosen.python or [sys.executable]
        places = [folder / f"environment-{number}" for number in range(len(ENVIRONMENTS))]

        def report_of(number: int) -> dict:
            pins = list(ENVIRONMENTS.values())[number]
            base = pythons[number % len(pythons)]
            python = make_environment(places[number], base, wheel, pins)
            return json.loads(run(python, str(SCRIPT)))

        with ThreadPoolExecutor(chosen.jobs) as pool:
            found = pool.map(report_of, range(len(places)))
            reports = dict(zip(ENVIRONMENTS, found, strict=True))
    for name, pins in ENVIRONMENTS.items():
        say(row(name, pins, reports[name]))
    return print_verdict(reports)


def build_wheel(folder: Path) -> Path:
    """Build this checkout's wheel, without files of an earlier build."""
    source = folder / "source"
    run("rm", "-rf", str(source))
    run("mkdir", str(source))
    tracked = run("git", "-C", str(ROOT), "ls-files").split("\n")
    archive = subprocess.run(
        ["tar", "-C", str(ROOT), "-c", *(path for path in tracked if path)],
        capture_output=True,
        check=True,
    )
    subprocess.run(["tar", "-C", str(source), "-x"], input=archive.stdout, check=True)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(folder), str(source))
    (wheel,) = folder.glob("codedance-*.whl")
    return wheel


def make_environment(place: Path, base: str, wheel: Path, pins: tuple[str, ...]) -> str:
    """Return the Python of a venv with the wheel's base package, its sandbox extra and pins."""
    python = str(place / "bin" / "python")
    if not Path(python).exists():
        run(base, "-m", "venv", str(place))
    install = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
    run(*install, f"{wheel}[sandbox]", *pins)
    run(*install, "--force-reinstall", "--no-deps", str(wheel))  # a kept folder may have another
    run(python, "-m", "pip", "check")
    return python


def say(line: str) -> None:
    """Print a line and flush it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run(*command: str) -> str:
    """Run a command with this process's standard error.

    Raises:
        CalledProcessError: It failed.
    """
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def row(name: str, pins: tuple[str, ...], report: dict) -> str:
    """Return the line of an environment in the table."""
    versions = [report["versions"][one] for one in SHOWN]
    beside = {pin.split("==")[0] for pin in pins} - set(SHOWN)
    others = [f"{one} {version}" for one, version in report["versions"].items() if one in beside]
    cells = (name, report["python"], *versions, ", ".join(others) or "–", report["digest"][:16])
    return f"| {' | '.join(map(str, cells))} |"


def print_verdict(reports: dict[str, dict]) -> int:
    """Print whether all digests are equal, or else which tasks differ."""
    first, *others = reports
    for name in others:
        pairs = zip(reports[first]["tasks"].items(), reports[name]["tasks"].values(), strict=True)
        differing = [task for (task, mine), theirs in pairs if mine != theirs]
        if differing:
            say(f"{name} differs from {first} in {len(differing)} tasks: {differing}")
    is_same = len({report["digest"] for report in reports.values()}) == 1
    say("all digests are the same" if is_same else "THE DIGESTS DIFFER")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
