"""vLLM's own Python environment, made on the spot: it pins other versions than ours.

The environment lies in the user's cache folder, under a name that depends on the list of versions,
so that it is made once and never changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ...concurrency.file_lock import try_lock

VARIABLE = "CODEDANCE_VLLM_PYTHON"
_LISTS = Path(__file__).parent
_COMPLETE = "complete"
_LOOK_SECONDS = 1.0
_SHOWN_CHARACTERS = 1500
_HAS_VLLM = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
# A build of torchvision for CUDA cannot be imported beside a CPU build of torch until these two
# operators, which it registers functions for, are declared. Nothing calls them.
_DECLARE_NMS = """\
import sys
from importlib.machinery import PathFinder
from pathlib import Path


class _Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and "+cu" in Path(spec.origin).with_name("version.py").read_text():
            import torch
            from torch import library as registry

            if torch.version.cuda is None:
                global kept
                kept = registry.Library("torchvision", "DEF")
                for operator in ("nms", "qnms"):
                    kept.define(
                        operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                    )
        return None


kept = None
sys.meta_path.insert(0, _Finder())
"""


class EngineError(RuntimeError):
    """vLLM cannot be started; the message says why and what to change."""


def engine_python(say: Callable[[str], None], *, has_gpu: bool) -> Path:
    """Return the interpreter of an environment with vLLM, which is made if there is none.

    Args:
        say: Called with a message where this takes minutes.
        has_gpu: Whether vLLM runs on GPUs; otherwise it is the build for CPUs.

    Raises:
        EngineError: The interpreter that `CODEDANCE_VLLM_PYTHON` names has no vLLM, or the
            environment could not be made.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return _checked(Path(named).expanduser())
    versions = _LISTS / ("vllm-cuda.txt" if has_gpu else "vllm-cpu.txt")
    folder = environment_folder(versions)
    folder.parent.mkdir(parents=True, exist_ok=True)
    waits = False
    while not (folder / _COMPLETE).is_file():
        with try_lock(folder.with_suffix(".lock")) as is_ours:
            if is_ours and not (folder / _COMPLETE).is_file():
                say(f"making vLLM's environment in {folder} (once; a minute, some gigabytes)")
                _make(folder, versions)
        if not is_ours and not waits:
            say(f"waiting for another process that makes {folder}")
            waits = True
        if not is_ours:
            time.sleep(_LOOK_SECONDS)
    return folder / "bin" / "python"


def environment_folder(versions: Path) -> Path:
    """Return the folder of the environment with these versions, in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    made_by = f"{sys.version_info.major}.{sys.version_info.minor} {_DECLARE_NMS}"
    digest = hashlib.sha256(versions.read_bytes() + made_by.encode()).hexdigest()[:12]
    return cache / "codedance" / f"{versions.stem}-{digest}"


def _checked(python: Path) -> Path:
    try:
        found = subprocess.run(
            [str(python), "-c", _HAS_VLLM],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    except OSError as error:
        raise EngineError(f"{VARIABLE} names {python}: {error.strerror or error}") from error
    if found.returncode:
        raise EngineError(
            f"{VARIABLE} names {python}, which has no vllm: install it there, or unset the "
            "variable, and an environment is made"
        )
    return python


def _make(folder: Path, versions: Path) -> None:
    """Make the environment; an incomplete one of an earlier try is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], "cannot make a virtual environment")
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(versions)]
    _run(install, f"cannot install {versions.name} (set pip's index by its own variables)")
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "declare_nms.py").write_text(_DECLARE_NMS, encoding="utf-8")
    (packages / "declare_nms.pth").write_text("import declare_nms\n", encoding="utf-8")
    (folder / _COMPLETE).touch()


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(
            f"{failure}:\n{(done.stderr or done.stdout)[-_SHOWN_CHARACTERS:].strip()}"
        )
