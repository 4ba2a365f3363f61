"""The worker's test build: a start script that patches it first; nothing installed is changed.

Neither a setting nor model code reaches it: tests put the path of the script into this process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from codedance.sandbox.host import worker_process
from codedance.sandbox.worker import landlock

ABIS = (0, 1, 2, 3, 4, 5)
"""Versions of landlock below the newest, each enforced exactly: fewer rights are handled."""

_NO_CALL = 4095
_MAIN = 'importlib.import_module("codedance_worker.zygote").main()'


@contextmanager
def patched_worker(patches: Sequence[str]) -> Iterator[None]:
    """Start each worker by a script that first runs ``patches`` of the module ``isolation``."""
    original = worker_process._SCRIPT
    text = original.read_text(encoding="utf-8")
    text = text.replace("os.path.abspath(__file__)", repr(str(original)))
    assert _MAIN in text
    importing = 'isolation = importlib.import_module("codedance_worker.isolation")'
    text = text.replace(_MAIN, "\n    ".join([importing, *patches, _MAIN]))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # read by a worker of another user
        script = Path(folder) / "start.py"
        script.write_text(text, encoding="utf-8")
        script.chmod(0o644)
        worker_process._SCRIPT = script
        try:
            yield
        finally:
            worker_process._SCRIPT = original


def lowered_landlock(abi: int | None):
    """Return a context in which workers see landlock's version ``abi``; None for the kernel's.

    With 0 they lack `mount_setattr` as well, as kernels before 5.12 do: unknown calls are ENOSYS.
    """
    if abi is None:
        return nullcontext()
    if abi > landlock.abi():
        raise ValueError(f"landlock {abi} asked for, this kernel has {landlock.abi()}")
    patches = [f"isolation.landlock.abi = lambda: {abi}"]
    patches += [] if abi else [f"isolation.kernel._MOUNT_SETATTR = {_NO_CALL}"]
    return patched_worker(patches)
