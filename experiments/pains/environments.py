"""Interpreters of the contestants: ours, and one for each trainer with its pins and some extras.

The environments of `tests/trainers` are used and never changed: extras come in an environment of
their own whose packages come first and which sees the trainer's through a ``.pth`` file.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS = Path(__file__).parent / "extras"
TRAINERS = ("trl", "verl", "verifiers")
OURS = "ours"


def interpreters(names: Iterable[str], given: Iterable[str] = ()) -> dict[str, Path]:
    """Return the interpreter of each contestant; make environments that are missing.

    Args:
        names: ``ours`` and trainers.
        given: Interpreters to use instead, as ``NAME=PATH``.

    Raises:
        ValueError: A name is unknown, or no ``NAME=PATH``.
        RuntimeError: An environment cannot be made; the message ends with what pip printed.
    """
    known = dict(_read(one) for one in given)
    for name in (*names, *known):
        if name not in (OURS, *TRAINERS):
            raise ValueError(f"expected ours, {', '.join(TRAINERS)}, got {name!r}")
    return {
        name: known.get(name) or (Path(sys.executable) if name == OURS else _interpreter(name))
        for name in names
    }


def _read(text: str) -> tuple[str, Path]:
    name, is_given, path = text.partition("=")
    if not is_given:
        raise ValueError(f"expected NAME=PATH of an interpreter, got {text!r}")
    return name, Path(path)


def _interpreter(name: str) -> Path:
    sys.path.append(str(ROOT / "tests"))
    from trainers.run import environment

    trainer = environment(name, sys.executable)
    extras = EXTRAS / f"{name}.txt"
    if not extras.is_file():
        return trainer / "bin" / "python"
    digest = hashlib.sha256(extras.read_bytes() + trainer.name.encode()).hexdigest()[:12]
    folder = trainer.parent / f"pains-{name}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        _run(trainer / "bin" / "python", "-m", "venv", "--clear", "--without-pip", str(folder))
        (own,) = folder.glob("lib/python*/site-packages")
        (theirs,) = trainer.glob("lib/python*/site-packages")
        (own / "trainer.pth").write_text(f"{theirs}\n", encoding="utf-8")
        _run(python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(extras))
        (folder / "complete").touch()
    return python


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{(done.stdout + done.stderr)[-3000:]}")
