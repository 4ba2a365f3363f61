"""Run tests/sandbox in a plain container: default seccomp profile, no root, no user namespaces.

What stands there is the tier `confined`, as in default Docker and Kubernetes. The image is built
from this machine's own files; the checkout is mounted read-only. Arguments go to pytest.
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
ALL = ("-q", "tests/sandbox", "--ignore=tests/sandbox/test_soak.py")  # the soak wants full walls
# The walls that cannot stand here are skipped by the hundred; their reasons are no news.
OPTIONS = "addopts=--strict-markers -m 'not slow' -rfE"
PYTEST = ("-p", "no:cacheprovider", "-o", OPTIONS)


def main() -> int:
    """Build the image, run the tests in it, and give pytest's exit status."""
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
