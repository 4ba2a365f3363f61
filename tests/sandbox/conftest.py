"""Sandboxes of each kind, opened once; a session costs milliseconds."""

import subprocess
import sys

import pytest
from codedance.sandbox import Limits, SandboxError
from codedance.sandbox.docker.backend import starter
from codedance.sandbox.docker.engine import Engine, worker_digest
from codedance.sandbox.docker.image.build import build_image
from codedance.sandbox.host.interpreter import ask_interpreter
from codedance.sandbox.host.zygote import ZygotePlan
from codedance.sandbox.local import LocalSandbox
from codedance.sandbox.types import DEFAULT_LIBRARIES
from codedance.sandbox.worker import landlock
from PIL import Image

SMALL = Limits(
    wall_seconds=4.0, memory_mb=256, threads=8, disk_mb=8, output_characters=2_000, images=4
)


def open_isolated(isolation, limits=SMALL, libraries=DEFAULT_LIBRARIES, interpreter=None):
    """Open a local sandbox with this isolation; skip if the machine does not support it."""
    interpreter = interpreter or ask_interpreter(sys.executable)
    plan = ZygotePlan(interpreter, libraries, limits, isolation)
    try:
        return LocalSandbox(plan, floor="none")
    except SandboxError as error:
        skip_if_lacking(isolation, error)
        raise


def skip_if_lacking(isolation, error):
    """Skip if the machine does not support the isolation; a broken worker is not a reason."""
    if isolation == "full" and not has_namespaces():
        pytest.skip(f"no user namespaces for full isolation here: {error}")
    if isolation == "confined" and not landlock.abi():
        pytest.skip(f"no landlock for confined isolation here: {error}")


def has_namespaces():
    """Return whether the kernel allows namespaces, tested in a separate process."""
    calls = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10020000) != 0)"
    return subprocess.run([sys.executable, "-c", calls], check=False).returncode == 0


def open_container(image, limits=SMALL, libraries=DEFAULT_LIBRARIES, isolation="auto"):
    """Open a sandbox in a container with exactly this isolation inside."""
    plan = ZygotePlan(None, libraries, limits, isolation)
    return LocalSandbox(plan, floor="confined", start=starter(image))


@pytest.fixture(scope="session")
def engine():
    """Docker's engine; without one, its tests are skipped."""
    try:
        engine = Engine()
    except SandboxError as error:
        pytest.skip(f"{error}: no Docker engine for the tests")
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def image(engine):
    """An image of the current code, built from local files unless it exists."""
    name = f"codedance-sandbox-test:{worker_digest()}"
    try:
        engine.check_image(name)
    except SandboxError:
        build_image(name)
    return name


@pytest.fixture(scope="session")
def docker(image):
    with open_container(image) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def docker_confined(image):
    with open_container(image, isolation="confined") as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def full():
    with open_isolated("full") as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def confined():
    with open_isolated("confined") as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def unsafe():
    with open_isolated("none") as sandbox:
        yield sandbox


@pytest.fixture(params=["full", "confined", "docker", "docker_confined", "unsafe"])
def sandbox(request):
    """Every backend and isolation level: the contract of a session holds on each."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["full", "confined", "docker", "docker_confined"])
def isolated(request):
    """Every isolated level: only there may an attempt to escape run."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def picture():
    image = Image.new("RGB", (40, 30), (200, 10, 30))
    image.putpixel((3, 2), (1, 2, 3))
    return image
