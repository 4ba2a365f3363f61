"""Our adapters inside the real packages of other trainers, each in an environment of its own.

For each trainer: an environment with its committed pins (made once, in the user's cache folder), a
wheel of this checkout installed beside it as a user would, `pip check`, and then its checks
(``<name>_checks.py``), which run there. Needs a package index:

    make test-trainers
    make test-trainers TRAINERS="verifiers trl"
    make test-trainers TRAINERS=nemo_gym PYTHON312=/path/to/python3.12
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from codedance.pipelines.concurrency.file_lock import try_lock
from five_environments import build_wheel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TRAINERS = ("verifiers", "trl", "openenv", "nemo_gym", "verl")
OWN_PYTHON = {"nemo_gym": "python3.12"}
"""Trainers whose packages need another Python than ours; all others use the one that runs this."""
LIGHT = {"codedance", "cloudpickle", "Farama-Notifications", "gymnasium", "msgpack"}
LIGHT |= {"numpy", "pillow", "typing_extensions"}
"""All that installing CodeDance beside a trainer may bring, where the trainer has none."""


def main() -> int:
    """Check the chosen trainers in turn; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trainers", nargs="*", metavar="TRAINER", help=", ".join(TRAINERS))
    parser.add_argument("--python312", default="python3.12", help="interpreter for nemo_gym")
    parser.add_argument("--select", default="", help="expression for pytest's -k")
    chosen = parser.parse_args()
    if unknown := set(chosen.trainers) - set(TRAINERS):
        parser.error(f"unknown trainers {sorted(unknown)}: one of {', '.join(TRAINERS)}")
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        wheel = build_wheel(Path(scratch))
        for name in chosen.trainers or TRAINERS:
            base = chosen.python312 if name in OWN_PYTHON else sys.executable
            say(f"\n=== {name}")
            python = beside(environment(name, base), Path(scratch) / name, wheel)
            if check(name, python, chosen.select):
                failed.append(name)
    say(f"\nfailed: {', '.join(failed)}" if failed else "\nall trainers passed")
    return 1 if failed else 0


def environment(name: str, base: str) -> Path:
    """Return the folder of a trainer's environment, which is made if there is none."""
    pins = HERE / "pins" / f"{name}.txt"
    version = output(base, "-c", "import sys; print(*sys.version_info[:2])")
    digest = hashlib.sha256(pins.read_bytes() + version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "codedance"
    folder = cache / f"trainer-{name}-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    while not (folder / "complete").is_file():
        with try_lock(folder.with_suffix(".lock")) as is_ours:
            if is_ours and not (folder / "complete").is_file():
                say(f"making the environment {folder.name} (once)")
                shutil.rmtree(folder, ignore_errors=True)
                output(base, "-m", "venv", str(folder))
                install = ("-m", "pip", "install", "--quiet", "--no-deps", "-r", str(pins))
                output(str(folder / "bin" / "python"), *install)
                (folder / "complete").touch()
        if not is_ours:
            time.sleep(1.0)
    return folder


def beside(trainer: Path, folder: Path, wheel: Path) -> Path:
    """Install the wheel beside a trainer's packages; return the interpreter that has both.

    The trainer's own environment is never changed: a second one, whose packages come after, sees
    its packages through a ``.pth`` file, and pip treats them as installed.

    Raises:
        AssertionError: More was installed than the environment and the sandbox need, something of
            the trainer's was replaced, or `pip check` finds a conflict.
    """
    python = folder / "bin" / "python"
    output(str(trainer / "bin" / "python"), "-m", "venv", "--without-pip", str(folder))
    (own,) = folder.glob("lib/python*/site-packages")
    (theirs,) = trainer.glob("lib/python*/site-packages")
    (own / "trainer.pth").write_text(f"{theirs}\n", encoding="utf-8")
    report = folder / "report.json"
    before = installed(python)
    pip = ("-m", "pip", "--disable-pip-version-check")
    output(str(python), *pip, "install", "--quiet", "--report", str(report), str(wheel))
    added = {
        one["metadata"]["name"]: one["metadata"]["version"]
        for one in json.loads(report.read_text(encoding="utf-8"))["install"]
    }
    say(f"pip install {wheel.name} added: {', '.join(f'{n} {v}' for n, v in added.items())}")
    assert set(added) <= LIGHT, f"more than {sorted(LIGHT)}: {sorted(set(added) - LIGHT)}"
    replaced = {name for name in added if name.lower().replace("_", "-") in before}
    assert not replaced, f"replaced what the trainer has: {sorted(replaced)}"
    say(f"pip check: {output(str(python), *pip, 'check').strip()}")
    return python


def installed(python: Path) -> set[str]:
    """Return the normalised names of all packages that an interpreter sees."""
    program = (
        "from importlib.metadata import distributions\n"
        "print(*{one.metadata['Name'] for one in distributions()})"
    )
    names = output(str(python), "-c", program).split()
    return {name.lower().replace("_", "-") for name in names}


def check(name: str, python: Path, select: str) -> int:
    """Run a trainer's checks in its environment; return pytest's exit status."""
    command = [
        str(python),
        "-m",
        "pytest",
        "-c",
        str(HERE / "pytest.ini"),
        "-p",
        "no:cacheprovider",
    ]
    command += [str(HERE / f"{name}_checks.py"), *(("-k", select) if select else ())]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CODEDANCE_")}
    own = {"PYTHONPATH": f"{ROOT / 'examples'}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    # Of this process, whose environment has our model and its servers.
    own |= {"OUR_PYTHON": sys.executable, "OUR_PATH": os.environ.get("PYTHONPATH", "")}
    quiet = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    quiet |= {"DO_NOT_TRACK": "true", "TRL_EXPERIMENTAL_SILENCE": "1"}
    return subprocess.run(command, cwd=ROOT, env=kept | own | quiet).returncode


def output(*command: str) -> str:
    """Run a command and return what it printed.

    Raises:
        RuntimeError: It failed; the message ends with what it printed.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=kept)
    except OSError as error:
        raise RuntimeError(f"cannot run {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
