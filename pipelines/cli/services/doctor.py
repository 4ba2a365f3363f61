"""``codedance doctor``: checks of this machine, with a fix for each failed one."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import typer

from ...config.registry import StageLoadError, entries, package_of, stage_names
from ..exit_codes import FINDINGS
from ..options import Json
from .finding import Finding
from .server_checks import check_servers

if TYPE_CHECKING:
    from ....sandbox.host.import_costs import LibraryCost

BROKEN_FROM = {
    "fastapi": ((0, 151), "prefect 3.8 fails with it: pip install 'fastapi<0.151'"),
    "sqlalchemy": ((2, 1), "prefect's scheduler fails with it: pip install 'sqlalchemy<2.1'"),
}
PACKAGES = (
    "gymnasium",
    "torch",
    "transformers",
    "prefect",
    "fastapi",
    "mlflow",
    "sqlalchemy",
    "alembic",
)


def doctor(json: Json = False) -> None:
    """Check this machine, and suggest how to fix what fails.

    Sandbox, folders, versions known to break, GPU, Docker, flows.yaml, and the configured Prefect
    and MLflow servers.
    """
    from ..document import document
    from ..output import say

    findings: list[Finding] = []
    with document(json) as publish:
        for check in CHECKS:
            for finding in _found(check):
                findings.append(finding)
                for line in _lines(finding):
                    say(line)
        bad = [finding for finding in findings if finding.is_needed and not finding.is_well]
        say()
        say(f"{len(bad)} to fix (BAD)" if bad else "everything that is needed works")
        publish({"is_well": not bad, "findings": findings})
    if bad:
        raise typer.Exit(FINDINGS)


def _found(check: Callable[[], list[Finding]]) -> list[Finding]:
    """Return the findings of a check; none where it needs a stage that `check_stages` reports."""
    try:
        return check()
    except StageLoadError:
        return []


def _lines(finding: Finding) -> list[str]:
    """Return a finding in lines of 80 columns; commands of a remedy are not wrapped."""
    mark = "ok " if finding.is_well else "BAD" if finding.is_needed else "-  "
    head = f"{mark}  {finding.subject:<14} "
    lines = _wrapped(finding.state)
    if finding.remedy and not finding.is_well:
        lines += _wrapped(finding.remedy)
    return [head + lines[0], *(" " * len(head) + line for line in lines[1:])]


def _wrapped(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines() or [""]:
        lines += [line] if line.startswith("  ") else textwrap.wrap(line, 60) or [""]
    return lines


def check_versions() -> list[Finding]:
    """Check the versions of Python and the packages, especially known-broken ones."""
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


def check_torchvision() -> list[Finding]:
    """Check whether torchvision, if installed, was built for this torch."""
    torch, vision = _installed("torch"), _installed("torchvision")
    if not vision:
        return []
    is_well = ("+cpu" in torch) == ("+cpu" in vision)
    remedy = "not built for this torch: importing it fails. Not needed: pip uninstall torchvision"
    return [Finding("torchvision", vision, is_well=is_well, is_needed=False, remedy=remedy)]


def _installed(name: str) -> str:
    """Return a package's version; empty if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def check_sandbox() -> list[Finding]:
    """Run a block in the sandbox; report its isolation level and what full isolation needs."""
    from ....sandbox import SandboxError, open_sandbox
    from ....sandbox.host.machine import find_lacks

    try:
        with open_sandbox("local") as sandbox, sandbox.session() as session:
            is_well = session.run("print(6 * 7)").stdout.strip() == "42"
            tier = sandbox.tier
    except (SandboxError, OSError) as error:
        remedy = "or use the container: codedance sandbox build, then --sandbox docker"
        return [Finding("sandbox", str(error), is_well=False, remedy=remedy)]
    found = [Finding("sandbox", tier, is_well=is_well)]
    if not tier.startswith("full"):
        found += [
            Finding("  isolation", lack.what, is_well=False, is_needed=False, remedy=lack.remedy)
            for lack in find_lacks()
        ]
    return found


def check_libraries() -> list[Finding]:
    """Measure the cost of each library in the sandbox: its import, and the fork of a session."""
    from ....sandbox import SandboxError
    from ....sandbox.docker.image.build import IMAGE_LIBRARIES
    from ....sandbox.host.import_costs import measure_libraries
    from ....sandbox.types import DEFAULT_LIBRARIES

    try:
        costs = measure_libraries(IMAGE_LIBRARIES, python=sys.executable)
    except SandboxError as error:
        return [Finding("libraries", str(error), is_well=False, is_needed=False)]
    return [_library(cost, is_preloaded=cost.name in DEFAULT_LIBRARIES) for cost in costs]


def _library(cost: LibraryCost, *, is_preloaded: bool) -> Finding:
    name = f"  {cost.name.partition('.')[0]}"
    if cost.import_ms is None or cost.fork_ms is None:
        remedy = "pip install 'codedance[sandbox]'"
        return Finding(name, cost.error, is_well=False, is_needed=False, remedy=remedy)
    when = "loaded before the first session" if is_preloaded else "loaded when imported"
    figures = f"import {cost.import_ms:.0f} ms, fork {cost.fork_ms:+.2f} ms"
    return Finding(name, f"{figures}; {when}")


def check_home() -> list[Finding]:
    """Check that CODEDANCE_DIR is writable and has free space."""
    import shutil

    from ...config.home import HomeError, find_home

    try:
        home = find_home()
    except HomeError as error:
        remedy = "only plan, play, ask and this need no disk"
        return [Finding("disk", str(error), is_well=False, remedy=remedy)]
    free = shutil.disk_usage(home.root).free / 2**30
    room = f"{free:.0f} GiB free at {home.root}"
    remedy = "a run needs about 1 GiB: set CODEDANCE_DIR to a larger disk"
    return [Finding("disk", room, is_well=free > 1, remedy=remedy)]


def check_store() -> list[Finding]:
    """Check the schema and file system of the store's database; nothing is created or changed."""
    from pathlib import Path

    from ...config.home import find_home
    from ...store.connection.address import read_address
    from ...store.connection.database import find_schema
    from ...store.connection.errors import StoreError, shown_url
    from ...store.connection.mounts import file_system, is_network

    address = find_home(make=False).store_url
    try:
        url = read_address(address)
        path = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        schema = find_schema(address) if path is None or path.exists() else None
    except StoreError as error:
        return [Finding("store", str(error), is_well=False, remedy="see docs/store.md")]
    stands = f"schema {schema}" if schema else "the first run makes it"
    kind = "" if path is None else file_system(path)
    remedy = (
        "SQLite's write-ahead log breaks there, so a slower journal is used: name a local file "
        "or a PostgreSQL server in CODEDANCE_STORE_URL"
    )
    words = f"{shown_url(url)}, {stands}{kind and f', on {kind}'}"
    return [Finding("store", words, is_well=not is_network(kind), is_needed=False, remedy=remedy)]


def check_accelerators() -> list[Finding]:
    """Check for a GPU by its driver, without loading torch, and whether torch can use it."""
    gpu = _gpu_in_words()
    if gpu is None:
        words = "none: the nano model does not need one"
        return [Finding("gpu", words, is_well=False, is_needed=False)]
    is_cpu_build = "+cpu" in _installed("torch")
    remedy = "torch is its CPU build: pip install --force-reinstall torch, from PyPI"
    return [Finding("gpu", gpu, is_well=not is_cpu_build, is_needed=False, remedy=remedy)]


def _gpu_in_words() -> str | None:
    """Return the GPUs' names and memory as the driver reports them; None without a driver."""
    import subprocess

    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
        return "; ".join(done.stdout.split("\n")[:-1]) or None
    return None


def check_docker() -> list[Finding]:
    """Check the Docker engine and the sandbox's image; the local sandbox needs neither."""
    from ....sandbox import SandboxError
    from ....sandbox.docker.engine import DEFAULT_IMAGE, Engine

    try:
        with contextlib.closing(Engine()) as engine:
            engine.check_image(DEFAULT_IMAGE)
    except SandboxError as error:
        remedy = "only --sandbox docker needs it"
        return [Finding("docker", str(error), is_well=False, is_needed=False, remedy=remedy)]
    return [Finding("docker", f"engine answers, image {DEFAULT_IMAGE} is of this version")]


def check_stages() -> list[Finding]:
    """Check the stages of other packages; no finding without any."""
    if not entries():
        return []
    try:
        stage_names()
    except StageLoadError as error:
        remedy = "correct that package, or uninstall it: every run needs all stages"
        return [Finding("stages", str(error), is_well=False, remedy=remedy)]
    added = ", ".join(f"{name} by {package_of(point)}" for name, point in entries().items())
    return [Finding("stages", added)]


def check_flows() -> list[Finding]:
    """Check flows.yaml."""
    from ...config.flows_file import find_flows_file, load_flows_file
    from ...config.yaml_file import SettingsError

    path = find_flows_file()
    try:
        load_flows_file(path)
    except SettingsError as error:
        return [Finding("flows.yaml", str(error), is_well=False, remedy=f"fix {path}")]
    return [Finding("flows.yaml", str(path))]


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_versions,
    check_torchvision,
    check_sandbox,
    check_libraries,
    check_docker,
    check_home,
    check_store,
    check_accelerators,
    check_stages,
    check_flows,
    check_servers,
)


def _numbers(text: str) -> tuple[int, ...]:
    digits = ["".join(c for c in part if c.isdigit()) for part in text.split(".")[:3]]
    return tuple(int(part or 0) for part in digits)
