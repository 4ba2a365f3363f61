"""The Docker engine: hardened containers are started, found and removed; errors are explained.

A container is labelled with the process that owns it (boot, pid namespace, process id and start
time), so that the next start can remove the containers of dead trainers, and no others.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..host.owner import is_stale, own_mark
from ..host.worker_process import ENVIRONMENT
from ..types import Limits, SandboxError, SandboxUnavailableError

DEFAULT_IMAGE = "codedance-sandbox"
WORKER_LABEL = "org.codedance.worker"
OWNER_LABEL = "org.codedance.owner"
MEETING_FOLDER = "/run/codedance"
NOBODY = "65532:65532"

_TIMEOUT_SECONDS = 60
_KNOCK_SECONDS = 5  # for a host that drops packets
_LEAST_MEMORY = 4 << 30
_SPARE_MEMORY = 2 << 30
_MOST_PROCESSES = 4096
_BUILD = "build it from this machine's files: codedance sandbox build"


@cache
def worker_digest() -> str:
    """Hash the worker's sources; an image with another digest is of another CodeDance version."""
    sha = hashlib.sha256()
    for path in sorted((Path(__file__).parents[1] / "worker").glob("*.py")):
        data = path.read_bytes()
        sha.update(f"{path.name} {len(data)}\n".encode() + data)
    return sha.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class StartedContainer:
    """A running container: its id, and the process id of its first process on this machine."""

    id: str
    process_id: int


class Engine:
    """A connection to the engine of ``DOCKER_HOST``, or of the default socket.

    Raises:
        SandboxUnavailableError: There is no SDK, no engine, or no permission to use it.
    """

    def __init__(self) -> None:
        try:
            import docker
        except ImportError as error:
            raise SandboxUnavailableError(
                "the docker backend needs Docker's Python SDK: pip install 'codedance[docker]'"
            ) from error
        try:
            _knock()
            self._client: Any = docker.from_env(timeout=_TIMEOUT_SECONDS)
        except Exception as error:
            raise SandboxUnavailableError(_why_no_engine(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def check_image(self, image: str) -> None:
        """Check that the image exists and holds this version's worker.

        Raises:
            SandboxUnavailableError: The image is missing, or of another version.
        """
        import docker.errors

        with self._explained():
            try:
                labels: dict[str, str] = self._client.images.get(image).labels
            except docker.errors.ImageNotFound as error:
                raise SandboxUnavailableError(f"no Docker image {image!r}; {_BUILD}") from error
        found = labels.get(WORKER_LABEL, "none")
        if found != worker_digest():
            raise SandboxUnavailableError(
                f"the Docker image {image!r} holds the worker of another version of CodeDance "
                f"({found}, this one's is {worker_digest()}); {_BUILD}"
            )

    def start(self, image: str, meeting_folder: str, limits: Limits) -> StartedContainer:
        """Start a container that connects to the host's socket in ``meeting_folder``.

        Raises:
            SandboxError: The engine refuses.
        """
        import docker.errors

        with self._explained():
            container = self._client.containers.run(
                image,
                detach=True,
                labels={OWNER_LABEL: own_mark()},
                volumes={meeting_folder: {"bind": MEETING_FOLDER, "mode": "ro"}},
                **hardening(limits),
            )
            try:
                container.reload()
            except docker.errors.NotFound as error:
                raise SandboxError(f"a container of {image!r} ended at once") from error
            return StartedContainer(container.id, int(container.attrs["State"]["Pid"]))

    def is_running(self, container_id: str) -> bool:
        """Whether the container runs."""
        with self._explained():
            return bool(self._client.api.containers(filters={"id": container_id}))

    def remove(self, container_id: str, *, wait_seconds: float = 0.0) -> None:
        """Remove the container, by force if it does not end within ``wait_seconds``."""
        import docker.errors

        with contextlib.suppress(docker.errors.NotFound):
            if wait_seconds:
                with contextlib.suppress(Exception):  # too late, or gone already
                    self._client.api.wait(container_id, timeout=wait_seconds, condition="removed")
            self._client.api.remove_container(container_id, force=True)

    def remove_stale(self) -> None:
        """Remove the containers of trainers that are dead."""
        with self._explained():
            found = self._client.api.containers(all=True, filters={"label": OWNER_LABEL})
        for container in found:
            if is_stale(container["Labels"].get(OWNER_LABEL, "")):
                with contextlib.suppress(Exception):  # another start may be faster
                    self.remove(container["Id"])

    def import_image(self, tar: str, *, name: str, changes: list[str]) -> str:
        """Import a root file system as an image; return its id.

        Raises:
            SandboxError: The engine refuses.
        """
        repository, _, tag = name.partition(":")
        with self._explained():
            self._client.api.import_image_from_file(
                tar, repository=repository, tag=tag or "latest", changes=changes
            )
            return str(self._client.images.get(name).id)

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        """Convert the SDK's exceptions into `SandboxError`."""
        import docker.errors
        import requests

        try:
            yield
        except docker.errors.APIError as error:
            words = error.explanation or str(error)
            raise SandboxError(f"the Docker engine refuses: {words}") from error
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise SandboxError(_why_no_engine(error)) from error


def hardening(limits: Limits) -> dict[str, Any]:
    """Return the hardening options of every container."""
    from docker.types import LogConfig, Ulimit

    memory = _container_memory(limits)
    return {
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true", f"seccomp={seccomp_profile()}"],
        "pids_limit": _MOST_PROCESSES,
        "mem_limit": memory,
        "memswap_limit": memory,
        "ipc_mode": "none",
        "tmpfs": {"/tmp": "rw,nosuid,nodev,noexec,size=256m,mode=1777"},
        "user": NOBODY,
        "log_config": LogConfig(type=LogConfig.types.NONE),
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],
        "hostname": "sandbox",
        "environment": ENVIRONMENT,
        "auto_remove": True,
    }


def seccomp_profile() -> str:
    """Return the seccomp profile; Docker's own forbids the namespaces that isolation needs."""
    return Path(__file__).with_name("image").joinpath("seccomp.json").read_text("utf-8")


def _container_memory(limits: Limits) -> int:
    """Return the memory limit of all sessions: one running turn per core, the rest idle; bytes."""
    places = len(os.sched_getaffinity(0))
    wanted = max(_LEAST_MEMORY, _SPARE_MEMORY + 2 * places * (limits.memory_mb << 20))
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(wanted, machine * 8 // 10)


def _address() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def _knock() -> None:
    """Connect once to raise the socket's own error, which the SDK would wrap."""
    kind, _, path = _address().partition("://")
    if kind == "unix":
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
    elif kind in ("tcp", "http", "https"):
        where = urlsplit(_address())
        port = where.port or (2376 if kind == "https" else 2375)
        socket.create_connection((where.hostname or "", port), _KNOCK_SECONDS).close()


def _why_no_engine(error: Exception) -> str:
    words = str(error)
    where = _address()
    if isinstance(error, PermissionError) or "Permission denied" in words:
        return (
            f"no permission to use the Docker engine at {where}; join its group "
            "(sudo usermod -aG docker $USER, then log in again) or set DOCKER_HOST to a "
            "rootless engine's socket"
        )
    return (
        f"no Docker engine answers at {where}; start it (sudo systemctl start docker) or set "
        f"DOCKER_HOST; it said: {words[:200]}"
    )
