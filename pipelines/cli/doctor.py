"""``codedance doctor``: what works on this machine, and how to mend what does not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import typer

BROKEN_FROM = {
    "fastapi": ((0, 151), "prefect 3.8 fails with it: pip install 'fastapi<0.151'"),
    "sqlalchemy": ((2, 1), "prefect's scheduler fails with it: pip install 'sqlalchemy<2.1'"),
}
PACKAGES = ("torch", "transformers", "prefect", "mlflow", "sqlalchemy", "fastapi", "gymnasium")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report; ``remedy`` says how to mend what is not well."""

    subject: str
    state: str
    is_well: bool = True
    is_needed: bool = True
    remedy: str = ""


def doctor() -> None:
    """Check this machine: sandbox, folders, versions, GPU, Docker, flows.yaml."""
    from .output import say

    findings = [finding for check in CHECKS for finding in check()]
    for finding in findings:
        mark = "ok " if finding.is_well else "BAD" if finding.is_needed else "-  "
        say(f"{mark}  {finding.subject:<14} {finding.state}")
        if finding.remedy and not finding.is_well:
            say(f"     {'':<14} {finding.remedy}")
    if any(f.is_needed and not f.is_well for f in findings):
        raise typer.Exit(1)


def check_versions() -> list[Finding]:
    """Look at Python's and the packages' versions, known-broken ones above all."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    return [Finding("python", python), *(_package(name) for name in PACKAGES)]


def _package(name: str) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        remedy = "pip install 'codedance[all]'"
        return Finding(name, "not installed", is_well=False, is_needed=False, remedy=remedy)
    limit = BROKEN_FROM.get(name)
    if limit is not None and _numbers(found) >= limit[0]:
        return Finding(name, found, is_well=False, remedy=limit[1])
    return Finding(name, found)


def check_sandbox() -> list[Finding]:
    """Open the sandbox, run a block, and say which walls stand."""
    from ...sandbox import SandboxError, open_sandbox

    try:
        with open_sandbox("local") as sandbox, sandbox.session() as session:
            execution = session.run("print(6 * 7)")
            is_well = execution.stdout.strip() == "42"
            return [Finding("sandbox", sandbox.tier, is_well=is_well)]
    except (SandboxError, OSError) as error:
        remedy = "unprivileged user namespaces have to be allowed: see docs/sandbox"
        return [Finding("sandbox", str(error), is_well=False, remedy=remedy)]


def check_home() -> list[Finding]:
    """Look at CODEDANCE_DIR: writable, room left, not on a network file system."""
    import shutil

    from ..home import find_home

    home = find_home()
    free = shutil.disk_usage(home.root).free / 2**30
    room = Finding(
        "disk",
        f"{free:.0f} GiB free at {home.root}",
        is_well=free > 1,
        remedy="a run needs about 1 GiB: set CODEDANCE_DIR to a larger disk",
    )
    kind = _file_system(str(home.root))
    is_remote = kind.startswith(("nfs", "cifs", "smb", "fuse.sshfs"))
    remedy = "SQLite's WAL breaks on it: set CODEDANCE_DIR to a local disk"
    return [room, Finding("file system", kind, is_well=not is_remote, remedy=remedy)]


def check_accelerators() -> list[Finding]:
    """Look for a GPU (by its driver, without loading torch) and for Docker."""
    import os
    import shutil

    has_gpu = os.path.exists("/proc/driver/nvidia/version") or bool(shutil.which("nvidia-smi"))
    gpu = "NVIDIA driver found" if has_gpu else "none: the nano model needs none"
    has_docker = os.path.exists("/var/run/docker.sock")
    docker = "daemon's socket found" if has_docker else "none: the local sandbox needs none"
    return [
        Finding("gpu", gpu, is_well=has_gpu, is_needed=False),
        Finding("docker", docker, is_well=has_docker, is_needed=False),
    ]


def check_flows() -> list[Finding]:
    """Read flows.yaml."""
    from ..flows_file import SettingsError, find_flows_file, load_flows_file

    path = find_flows_file()
    try:
        load_flows_file(path)
    except SettingsError as error:
        return [Finding("flows.yaml", str(error), is_well=False, remedy=f"mend {path}")]
    return [Finding("flows.yaml", str(path))]


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_versions,
    check_sandbox,
    check_home,
    check_accelerators,
    check_flows,
)


def _numbers(text: str) -> tuple[int, ...]:
    digits = ["".join(c for c in part if c.isdigit()) for part in text.split(".")[:3]]
    return tuple(int(part or 0) for part in digits)


def _file_system(path: str) -> str:
    """Give the type of the file system that ``path`` lies on."""
    best, kind = "", "unknown"
    with open("/proc/mounts", encoding="utf-8") as file:
        for line in file:
            _, point, found = line.split()[:3]
            if path.startswith(point) and len(point) >= len(best):
                best, kind = point, found
    return kind
