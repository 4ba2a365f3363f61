"""The file system of the virtual machine: this interpreter, its libraries and the checkout.

It is an initial RAM file system (cpio), so it needs no driver of the kernel. `pack.py` of the
docker backend collects the files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import codedance.sandbox as package
import msgpack
from codedance.sandbox.docker.image import pack
from codedance.sandbox.types import DEFAULT_LIBRARIES

_CHECKOUT = "opt/checkout"
_GUEST = Path(__file__).parent
_INIT = """#!{python} -I
import os
os.environ.update(PATH="/usr/bin:/bin", LANG="C.UTF-8", HOME="/root", OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1", PYTHONPATH="/{checkout}:/{checkout}/tests")
os.chdir("/{checkout}/tests")
os.execv({python!r}, [{python!r}, "-B", "-m", "kernels.guest"])
"""


def root_image(checkout: Path, folder: Path, target: Path) -> None:
    """Write the file system with a checkout's sandbox and tests to ``target``."""
    base = folder / f"base-{_packages()}.cpio"
    python = base.with_suffix(".python")
    if not python.exists():
        python.write_text(_write_base(base))
    with target.open("wb") as file:
        with base.open("rb") as source:
            shutil.copyfileobj(source, file)  # the kernel reads archives one after another
        _write_checkout(file, checkout, python.read_text())


def _packages() -> str:
    """Return a digest of this interpreter and its packages."""
    found = sorted(f"{each.name} {each.version}" for each in importlib.metadata.distributions())
    return hashlib.sha256("\n".join([sys.version, *found]).encode()).hexdigest()[:12]


def _write_base(target: Path) -> str:
    """Write the interpreter with its libraries; return its path."""
    with tempfile.TemporaryDirectory() as scratch:
        tar = Path(scratch) / "base.tar"
        request = {
            "output": str(tar),
            "libraries": list(DEFAULT_LIBRARIES),
            "worker": str(Path(inspect.getfile(package)).parent / "worker"),
            "msgpack": str(Path(inspect.getfile(msgpack)).parent),
            "whole": True,
        }
        done = subprocess.run(
            [sys.executable, "-E", "-B", inspect.getfile(pack)],
            input=json.dumps(request),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        with tarfile.open(tar) as packed, target.open("wb") as file:
            for entry in packed:
                data = packed.extractfile(entry) if entry.isreg() else None
                text = data.read() if data else entry.linkname.encode()
                _add(file, entry.name, _mode(entry), text)
            _end(file)
    return json.loads(done.stdout.splitlines()[-1])["executable"]


def _mode(entry: tarfile.TarInfo) -> int:
    kinds = {tarfile.REGTYPE: 0o100000, tarfile.DIRTYPE: 0o040000, tarfile.SYMTYPE: 0o120000}
    return kinds[entry.type] | entry.mode


def _write_checkout(file: BinaryIO, checkout: Path, python: str) -> None:
    """Write the sandbox and the tests of a checkout, and the first program."""
    folders = set[str]()
    parts = (
        ("codedance/sandbox", checkout / "sandbox"),
        ("tests/sandbox", checkout / "tests" / "sandbox"),
        ("tests/kernels", _GUEST),
    )
    for name, source in parts:
        for path in _files(source):
            inside = f"{_CHECKOUT}/{name}/{path.relative_to(source)}"
            for folder in reversed(Path(inside).parents[:-1]):
                if str(folder) not in folders:
                    folders.add(str(folder))
                    _add(file, str(folder), 0o040755, b"")
            _add(file, inside, 0o100644, path.read_bytes())
    _add(file, "etc/passwd", 0o100644, b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:\n")
    _add(file, "etc/shadow", 0o100600, b"root:*:1::::::\n")
    init = _INIT.format(python=python, checkout=_CHECKOUT)
    _add(file, "init", 0o100755, init.encode())
    _end(file)


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )


def _add(file: BinaryIO, name: str, mode: int, data: bytes) -> None:
    """Write one entry of a cpio archive ("newc"), owned by root."""
    encoded = name.encode() + b"\0"
    inode, owner, links, time, device = 0, (0, 0), 1, 315_532_800, (0, 0, 0, 0)
    fields = (inode, mode, *owner, links, time, len(data), *device, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in fields) + encoded
    file.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))


def _end(file: BinaryIO) -> None:
    _add(file, "TRAILER!!!", 0, b"")
