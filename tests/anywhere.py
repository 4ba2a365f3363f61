"""Install a wheel of this checkout in several places; compare the golden digests of each.

The text that a model reads, digests, seeds and trained weights must not depend on the location of
the package, the interpreter or the home folder, nor on user, locale, time zone, terminal width or
hash seed:

    make test-anywhere

Every place has its own environment with the dependencies of this interpreter, and a copy of
``golden`` and `played_tasks`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("golden", "played_tasks.py")
NOBODY = 65534


@dataclass(frozen=True)
class Place:
    """Location and conditions of an installation.

    Attributes:
        name: Name of its row in the table.
        folder: Folder inside the scratch folder.
        environment: Variables added to an empty environment.
        user: User that runs it, with an interpreter that this user can read; None for the
            current one.
    """

    name: str
    folder: str
    environment: dict[str, str] = field(default_factory=dict)
    user: int | None = None


PLACES = (
    Place("plain", "plain", {"LANG": "C.UTF-8"}),
    Place(
        "space and umlaut, other locale, zone, width and hash seed",
        "Jörgs Haus am See",
        {
            **{"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Kathmandu"},
            **{"COLUMNS": "200", "LINES": "9", "PYTHONHASHSEED": "4711", "USER": "jörg"},
        },
    ),
    Place(
        "a user who is not root, bare locale",
        "nobody",
        {"LC_ALL": "C", "TZ": "America/St_Johns", "COLUMNS": "40", "PYTHONHASHSEED": "1"},
        user=NOBODY,
    ),
)


def main() -> int:
    """Compute the golden digests in every place and print the table; return 1 if one differs."""
    before = json.loads((ROOT / "tests" / "golden" / "digests.json").read_text(encoding="utf-8"))
    differing = 0
    with tempfile.TemporaryDirectory(prefix="codedance-anywhere-") as scratch:
        Path(scratch).chmod(0o755)
        wheel = build_wheel(Path(scratch))
        for place in PLACES:
            if place.user is not None and (os.getuid() != 0 or not python_for(place.user)):
                say(f"{place.name}: left out, it takes root and an interpreter that all can read")
                continue
            began = time.monotonic()
            found = digests_in(Path(scratch), place, wheel)
            wrong = sorted(
                f"{part}: {name}" for part in before for name in differences(before, found, part)
            )
            differing += len(wrong)
            count = len(found["episodes"])
            words = f"{len(wrong)} differ: {wrong[:8]}" if wrong else "all as recorded"
            say(f"{place.name}: {count} tasks, {time.monotonic() - began:.0f} s, {words}")
    say("THE DIGESTS DIFFER" if differing else "the same everywhere")
    return 1 if differing else 0


def differences(before: dict, found: dict, part: str) -> list[str]:
    """Return the names in one part of the digests that differ from the record."""
    names = before[part] | found[part]
    return [name for name in names if before[part].get(name) != found[part].get(name)]


def build_wheel(scratch: Path) -> Path:
    """Build this checkout's wheel from a copy, to exclude files of an earlier build."""
    source = scratch / "source"
    listed = run("git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        target = source / name
        if (ROOT / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    run(*pip, "--wheel-dir", str(scratch / "wheels"), str(source))
    return next((scratch / "wheels").glob("*.whl"))


def digests_in(scratch: Path, place: Place, wheel: Path) -> dict:
    """Install in a place and return the golden digests computed there."""
    folder = scratch / place.folder
    (folder / "home").mkdir(parents=True)
    base = sys.executable if place.user is None else python_for(place.user)
    run(base, "-m", "venv", "--without-pip", str(folder / "venv"))
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--target", str(packages), str(wheel))
    tests = folder / "tests"
    tests.mkdir()
    for name in SCRIPTS:
        copy = shutil.copytree if (ROOT / "tests" / name).is_dir() else shutil.copyfile
        copy(ROOT / "tests" / name, tests / name)
    if place.user is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, place.user, place.user, follow_symlinks=False)
    environment = {
        **{"PATH": os.environ["PATH"], "HOME": str(folder / "home")},
        **place.environment,
        "CODEDANCE_DIR": str(folder / "home" / ".codedance"),
    }
    done = subprocess.run(
        [str(folder / "venv" / "bin" / "python"), "-m", "golden.record", "--print"],
        cwd=tests,
        env=environment,
        stdout=subprocess.PIPE,
        user=place.user,
        group=place.user,
        extra_groups=None if place.user is None else [],
        check=True,
    )
    return json.loads(done.stdout)


def python_for(user: int) -> str:
    """Return an interpreter with which another user can read the dependencies; "" if none."""
    dependencies = sysconfig.get_path("purelib")
    find = f"import ssl, sys; sys.path.append({dependencies!r}); import msgpack, torch"
    minor = f"python3.{sys.version_info.minor}"
    for path in (f"{sys.base_prefix}/bin/{minor}", f"/usr/bin/{minor}"):
        command = (path, "-c", f"{find}; print(sys.version, sys.prefix)")
        theirs = as_user(user, *command) if Path(path).is_file() else None
        if theirs is not None and theirs == run(*command):
            return path
    return ""


def as_user(user: int, *command: str) -> str | None:
    """Run a command as another user; None if it cannot be run, or fails."""
    try:
        done = subprocess.run(
            command, user=user, group=user, extra_groups=[], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode()


def run(*command: str) -> str:
    """Run a command with this process's standard error.

    Raises:
        CalledProcessError: It failed.
    """
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def say(line: str) -> None:
    """Print a line and flush it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
