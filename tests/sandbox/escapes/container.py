"""A disposable container with this machine's Python, for controls and for unprivileged users.

The image is nearly empty; interpreter, libraries and tests are mounted read-only, so it is built in
a second and needs no registry.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from codedance.sandbox.host.interpreter import ask_interpreter
from codedance.sandbox.worker.rootfs import folders_of_libraries

from .judging import Verdict

_IMAGE = "codedance-escapes:1"
_DOCKERFILE = """FROM scratch
COPY root/ /
ENV PATH=/usr/bin:/bin LANG=C.UTF-8 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"""
_TESTS = Path(__file__).parents[2]
_SANDBOX = _TESTS.parent / "sandbox"
_LIMITS = """
    --rm --network none --pids-limit 400 --memory 3g --memory-swap 3g --log-driver none
    --ulimit core=0 --ulimit nofile=4096:4096
"""


def is_docker_there() -> bool:
    """Return whether a container can be run here."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def judge_in_container(
    words: Sequence[str], *, user: int, options: Sequence[str] = ()
) -> list[Verdict]:
    """Run ``python -m sandbox.escapes WORDS`` as a container's first process.

    Raises:
        RuntimeError: It failed; the message ends with its standard error.
    """
    build_image()
    command = ["docker", "run", *_LIMITS.split(), "--user", f"{user}:{user}", *options, *_mounts()]
    command += ["--env", f"PYTHONPATH=/package:{_TESTS}", "--workdir", str(_TESTS), _IMAGE]
    command += [sys.executable, "-B", "-m", "sandbox.escapes", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"the container ended with {done.returncode}: {done.stderr[-2000:]}")
    return [Verdict(**fields) for fields in json.loads(lines[-1])]


@functools.cache
def build_image() -> None:
    """Build the image from a few empty folders and links."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        for name in ("usr", "etc", "proc", "sys", "dev", "root", "var", "package/codedance"):
            (root / name).mkdir(parents=True)
        (root / "tmp").mkdir()
        (root / "tmp").chmod(0o1777)
        for name in ("bin", "lib", "lib64", "sbin"):
            (root / name).symlink_to(f"usr/{name}")
        (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:\n")
        (root / "etc" / "shadow").write_text("root:*:1::::::\n")
        (root / "etc" / "shadow").chmod(0o600)
        (Path(folder) / "Dockerfile").write_text(_DOCKERFILE)
        command = ["docker", "build", "--quiet", "--network", "none", "--tag", _IMAGE, folder]
        subprocess.run(command, check=True, capture_output=True)


def _mounts() -> list[str]:
    interpreter = ask_interpreter(sys.executable)
    environment = Path(interpreter.executable).parents[1]
    shown = {"/usr", str(environment), sys.base_prefix, str(_TESTS)}
    shown |= set(folders_of_libraries(sys.base_prefix, interpreter.paths))
    mounts = [f"--volume={_SANDBOX}:/package/codedance/sandbox:ro"]
    for path in sorted(shown):
        if not any(path.startswith(f"{other}/") for other in shown) and not _is_link(path):
            mounts.append(f"--volume={path}:{path}:ro")
    return mounts


def _is_link(path: str) -> bool:
    return Path(path).is_symlink()
