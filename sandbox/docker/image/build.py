"""Build of the docker backend's image out of this machine's own files, without a registry."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from ...host.worker_process import FLAGS
from ...types import SandboxError
from ..engine import DEFAULT_IMAGE, NOBODY, WORKER_LABEL, Engine, worker_digest

IMAGE_LIBRARIES: tuple[str, ...] = (
    "numpy",
    "PIL",
    "cv2",
    "matplotlib.pyplot",
    "scipy",
    "skimage",
    "sympy",
    "pandas",
    "networkx",
    "shapely",
)
"""Libraries of an image by default."""

START_SCRIPT = "/opt/codedance/worker/start.py"
_SANDBOX = Path(__file__).parents[2]
_PACK = Path(__file__).with_name("pack.py")

Progress = Callable[[int, int], None]
"""Called with the number of files packed so far and their total."""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image that was built.

    Attributes:
        name: Name, as requested.
        id: Identifier of the image in the engine.
        megabytes: Size of its root file system, in MiB.
        missing: Libraries that the interpreter does not have.
    """

    name: str
    id: str
    megabytes: int
    missing: tuple[str, ...]


def build_image(
    name: str = DEFAULT_IMAGE,
    *,
    libraries: Sequence[str] = IMAGE_LIBRARIES,
    python: str | None = None,
    progress: Progress | None = None,
    whole: bool = False,
) -> BuiltImage:
    """Build an image out of an interpreter, its libraries and the worker.

    Args:
        name: Name of the image, ``repository`` or ``repository:tag``.
        libraries: Modules to include, with their dependencies.
        python: Path of the interpreter; None for this one.
        progress: Callback for the progress of packing.
        whole: Whether to install the libraries in the interpreter's own folder, for an image that
            runs more than the worker.

    Raises:
        SandboxError: There is no engine, or the interpreter or a file cannot be read.
    """
    with (
        contextlib.closing(Engine()) as engine,
        tempfile.TemporaryDirectory(prefix="codedance-image-") as folder,
    ):
        tar = os.path.join(folder, "rootfs.tar")
        request = _request(tar, libraries, whole=whole)
        packed = _pack(python or sys.executable, request, progress)
        missing = tuple(packed["missing"])
        lost = [library for library in missing if library not in IMAGE_LIBRARIES]
        if lost:
            raise SandboxError(
                f"{python or sys.executable} has no {', '.join(lost)}; install it there, or leave "
                "it out of --libraries"
            )
        megabytes = os.path.getsize(tar) >> 20
        image = engine.import_image(tar, name=name, changes=_changes(packed["executable"]))
    return BuiltImage(name, image, megabytes, missing)


def _changes(executable: str) -> list[str]:
    """Return the Dockerfile instructions: the command, the user and the worker's version."""
    return [
        f"CMD {json.dumps([executable, *FLAGS, START_SCRIPT])}",
        f"USER {NOBODY}",
        "WORKDIR /",
        f"LABEL {WORKER_LABEL}={worker_digest()}",
    ]


def _request(tar: str, libraries: Sequence[str], *, whole: bool) -> str:
    return json.dumps(
        {
            "output": tar,
            "libraries": list(libraries),
            "worker": str(_SANDBOX / "worker"),
            "msgpack": str(Path(inspect.getfile(msgpack)).parent),
            "whole": whole,
        }
    )


def _pack(python: str, request: str, progress: Progress | None) -> dict[str, Any]:
    try:
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                [python, "-E", "-B", str(_PACK)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                text=True,
            ) as process,
        ):
            result = _converse(process, request, progress)
            if process.wait() != 0 or result is None:
                errors.seek(0)
                words = errors.read()[-1000:].decode("utf-8", "replace").strip()
                raise SandboxError(f"the image could not be packed with {python}: {words}")
            return result
    except OSError as error:
        raise SandboxError(f"python={python!r} cannot be run: {error}") from error


def _converse(
    process: subprocess.Popen[str], request: str, progress: Progress | None
) -> dict[str, Any] | None:
    """Send the request, report the progress, and return the result; None without one."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(request)
    for line in process.stdout:
        words = json.loads(line)
        if isinstance(words, dict):
            return words
        if progress is not None:
            progress(words[0], words[1])
    return None
