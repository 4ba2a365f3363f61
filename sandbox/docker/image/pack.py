"""Pack a root file system for the worker: Python, libraries and the libraries they link to.

A script, run by the interpreter that the image is to contain; standard library only. It reads a
request (JSON) from standard input, writes a tar, and prints its progress, one JSON list per line.

Bytecode is stored with unchecked hashes, so that it is valid whatever the files' modification
times are, and imports do not compile.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import json
import marshal
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import warnings
from collections.abc import Iterable, Iterator

_ROOT = "/opt/codedance"
_FOLDERS = ("/tmp", "/mnt", "/run/codedance", "/dev", "/proc", "/sys", "/etc")
_LINKED_FOLDERS = ("/lib", "/lib64", "/usr/lib64")
_NOT_NEEDED = {
    "__pycache__",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
}
_FILES_A_REPORT = 250
_PYC_UNCHECKED = (1).to_bytes(4, "little")
_DEPENDENCY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LINKED = re.compile(r"(?:=> |^\s+)(/\S+) \(0x", re.MULTILINE)


class Rootfs:
    """The tar under construction: each file once, all owned by root, readable by everyone."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._known: set[str] = set()
        self.binaries: list[str] = []

    def add(self, source: str, target: str) -> None:
        """Add a file, with its bytecode if it is a Python file."""
        if target in self._known:
            return
        with open(source, "rb") as file:
            data = file.read()
        self._add_bytes(data, target, is_executable=os.access(source, os.X_OK))
        if target.endswith(".py"):
            code = _bytecode(source, data)
            if code:
                folder, name = os.path.split(target)
                cached = os.path.basename(importlib.util.cache_from_source(name))
                self._add_bytes(code, f"{folder}/__pycache__/{cached}")
        if data.startswith(b"\x7fELF"):
            self.binaries.append(source)

    def add_folder(self, path: str, mode: int = 0o755) -> None:
        """Add a folder and its parents."""
        if path in self._known or path == "/":
            return
        self.add_folder(os.path.dirname(path))
        self._known.add(path)
        self._tar.addfile(_entry(path, tarfile.DIRTYPE, mode))

    def add_link(self, path: str, leads_to: str) -> None:
        """Add a symbolic link."""
        self._known.add(path)
        entry = _entry(path, tarfile.SYMTYPE, 0o777)
        entry.linkname = leads_to
        self._tar.addfile(entry)

    def _add_bytes(self, data: bytes, target: str, *, is_executable: bool = False) -> None:
        self.add_folder(os.path.dirname(target))
        self._known.add(target)
        entry = _entry(target, tarfile.REGTYPE, 0o755 if is_executable else 0o644)
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.type = kind
    entry.mode = mode
    entry.mtime = 315_532_800  # 1980: reproducible images
    return entry


def _bytecode(source: str, text: bytes) -> bytes | None:
    """Return a file's bytecode with an unchecked hash; None where it does not compile."""
    body = _cached_code(source)
    if body is None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                body = marshal.dumps(compile(text, source, "exec", dont_inherit=True))
        except (SyntaxError, ValueError):
            return None
    digest = importlib.util.source_hash(text)
    return importlib.util.MAGIC_NUMBER + _PYC_UNCHECKED + digest + body


def _cached_code(source: str) -> bytes | None:
    """Return the code of the bytecode file of a source, if it is up to date."""
    try:
        with open(importlib.util.cache_from_source(source), "rb") as file:
            data = file.read()
        found = os.stat(source)
    except OSError:
        return None
    stamp = (int(found.st_mtime) & 0xFFFF_FFFF).to_bytes(4, "little")
    stamp += (found.st_size & 0xFFFF_FFFF).to_bytes(4, "little")
    is_valid = data[:16] == importlib.util.MAGIC_NUMBER + bytes(4) + stamp
    return data[16:] if is_valid else None


def _walk(folder: str) -> Iterator[str]:
    """Yield the files below a folder, without those that no session needs."""
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(
            name for name in folders if name not in _NOT_NEEDED and not name.startswith("config-")
        )
        yield from (os.path.join(root, name) for name in sorted(names))


def _python_files() -> dict[str, str]:
    """Return the interpreter and its standard library, each under its own path."""
    files = [os.path.realpath(sys.executable)]
    for name in ("stdlib", "platstdlib"):
        files += _walk(sysconfig.get_path(name, vars={"base": sys.base_prefix}))
    return {file: file for file in files}


def _library_files(libraries: Iterable[str], site: str) -> tuple[dict[str, str], list[str]]:
    """Return the files of the libraries and their dependencies, and the missing libraries."""
    owners = _owners()
    files: dict[str, str] = {}
    missing: list[str] = []
    waiting: list[str] = []
    for library in libraries:
        top = library.partition(".")[0]
        waiting += owners.get(top, [])
        if top not in owners:
            missing += [] if _add_unowned(top, site, files) else [library]
    seen: set[str] = set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # required elsewhere only, or optional
        _add_distribution(found, site, files)
        for line in found.requires or ():
            required = _DEPENDENCY.match(line)
            if required and "extra ==" not in line:
                waiting.append(required.group())
    return files, missing


def _owners() -> dict[str, list[str]]:
    """Return the distributions that provide each top-level name."""
    owners: dict[str, list[str]] = {}
    for found in importlib.metadata.distributions():
        named = (found.read_text("top_level.txt") or "").split()
        tops = set(named) or {str(path).partition("/")[0] for path in found.files or ()}
        for top in tops:
            owners.setdefault(top.partition(".")[0], []).append(found.metadata["Name"])
    return owners


def _add_distribution(
    found: importlib.metadata.Distribution, site: str, files: dict[str, str]
) -> None:
    for path in found.files or ():
        source = str(path.locate())
        is_needed = not _NOT_NEEDED.intersection(path.parts) and ".." not in path.parts
        if is_needed and os.path.isfile(source):
            files[source] = f"{site}/{path}"


def _add_unowned(top: str, site: str, files: dict[str, str]) -> bool:
    """Add a package that no distribution lists (a system's own package may not)."""
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return False
    if not spec.submodule_search_locations:
        files[spec.origin] = f"{site}/{os.path.basename(spec.origin)}"
    for folder in spec.submodule_search_locations or ():
        files.update(
            (file, f"{site}/{top}/{os.path.relpath(file, folder)}") for file in _walk(folder)
        )
    return True


def _linked_files(binaries: list[str], packed: Iterable[str]) -> dict[str, str]:
    """Return the system libraries that the binaries link to, at the paths the loader searches."""
    ours = set(packed)
    found: set[str] = set()
    for start in range(0, len(binaries), 100):
        answer = subprocess.run(
            ["ldd", *binaries[start : start + 100]], capture_output=True, text=True, check=False
        )
        found.update(_LINKED.findall(answer.stdout))
    files: dict[str, str] = {}
    for path in sorted(found):
        real = os.path.realpath(path)
        if path not in ours and real not in ours and "-packages/" not in path:
            folder = os.path.realpath(os.path.dirname(path))
            files[real] = files.get(real) or f"{folder}/{os.path.basename(path)}"
    return files


def _own_site() -> str:
    """Return the interpreter's own folder of libraries, outside any virtual environment."""
    asked = [sys._base_executable, "-I", "-c", "import site; print(site.getsitepackages()[0])"]  # type: ignore[attr-defined]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def pack(request: dict[str, object]) -> dict[str, object]:
    """Write the requested tar; return the path of Python and the missing libraries."""
    site = f"{_ROOT}/site"
    if request["whole"]:
        site = _own_site()
    libraries, missing = _library_files(
        list(request["libraries"]),  # type: ignore[call-overload]
        site,
    )
    files = {**_python_files(), **libraries}
    for name, target in (("worker", f"{_ROOT}/worker"), ("msgpack", f"{site}/msgpack")):
        folder = str(request[name])
        files.update((file, f"{target}/{os.path.relpath(file, folder)}") for file in _walk(folder))
    with tarfile.open(str(request["output"]), "w") as tar:
        rootfs = Rootfs(tar)
        for folder in _LINKED_FOLDERS:
            if os.path.islink(folder):
                rootfs.add_link(folder, os.readlink(folder))
        for folder in _FOLDERS:
            rootfs.add_folder(folder, 0o1777 if folder == "/tmp" else 0o755)
        for number, (source, target) in enumerate(files.items()):
            if number % _FILES_A_REPORT == 0:
                _report([number, len(files)])
            rootfs.add(source, target)
        for source, target in _linked_files(rootfs.binaries, files).items():
            rootfs.add(source, target)
        if os.path.exists("/etc/ld.so.cache"):
            rootfs.add("/etc/ld.so.cache", "/etc/ld.so.cache")
    _report([len(files), len(files)])
    return {"executable": os.path.realpath(sys.executable), "missing": missing}


def _report(words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _report(pack(json.load(sys.stdin)))
