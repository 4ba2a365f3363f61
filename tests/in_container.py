"""Run tests/sandbox in a plain container: default seccomp profile, no root, no user namespaces.

The isolation level there is `confined`, as in default Docker and Kubernetes. The image is built
from this machine's files; the checkout is mounted read-only. Arguments are passed to pytest.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

from codedance.sandbox.docker.engine import Engine
from codedance.sandbox.docker.image.build import IMAGE_LIBRARIES, build_image

ROOT = Path(__file__).resolve().parent.parent
NAME = "codedance-tests"
ROOMS = ("sandbox", "envs", "policies", "pipelines")
TESTING = ("pytest", "pytest_timeout", "hypothesis", "msgpack", "docker", "gymnasium")
ALL = ("-q", "tests/sandbox", "--ignore=tests/sandbox/test_soak.py")  # it needs full isolation
# Hundreds of tests of full isolation are skipped here; their reasons are not printed.
OPTIONS = "addopts=--strict-markers -m 'not slow and not long' -rfE"
PYTEST = ("-p", "no:cacheprovider", "-o", OPTIONS)


def main() -> int:
    """Build the image, run the tests in it, and return pytest's exit status."""
    build_image(NAME, libraries=(*IMAGE_LIBRARIES, *TESTING), whole=True)
    with contextlib.closing(Engine()) as engine:
        python = engine._client.images.get(NAME).attrs["Config"]["Cmd"][0]
    command = ["docker", "run", "--rm", "--init", "--network", "none", "--user", "1000:1000"]
    command += ["--volume", f"{ROOT}:/checkout:ro", "--workdir", "/checkout"]
    for room in ROOMS:
        command += ["--volume", f"{ROOT / room}:/opt/checkout/codedance/{room}:ro"]
    command += ["--env", "PYTHONPATH=/opt/checkout", "--env", "HOME=/tmp"]
    command += ["--env", "HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis", NAME]
    command += [python, "-B", "-m", "pytest", *PYTEST, *(sys.argv[1:] or ALL)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
