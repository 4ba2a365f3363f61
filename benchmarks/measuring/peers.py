"""Optional contestants: docker exec and a Jupyter kernel; each reports how to install it."""

from __future__ import annotations

import base64
import importlib
import io
import subprocess
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from codedance.sandbox import SandboxError
from codedance.sandbox.docker.engine import Engine
from codedance.sandbox.host.worker_process import ENVIRONMENT
from PIL import Image

from .contestants import Stateful, check_bytes, one_shot
from .programs import PROGRAMS, Program, explicit

_KERNEL_SECONDS = 120


class Missing(Exception):  # noqa: N818 - a peer's absence, which is a line of the report
    """A contestant cannot take part; the message says how to install it."""


class DockerExec:
    """``docker exec`` in an idle container: a new interpreter for every turn.

    Args:
        picture: Image that its programs read; copied to the container once.
        image: Container image with Python and the libraries.

    Raises:
        Missing: No SDK, no engine, or no image.
    """

    name = "docker exec"
    stride = 4

    def __init__(self, picture: Image.Image, image: str = "codedance-sandbox") -> None:
        self._picture = base64.b64encode(picture.tobytes()).decode()
        try:
            Engine().close()  # its error explains why there is none
            docker: Any = importlib.import_module("docker")
            self._client = docker.from_env(timeout=60)
            config = self._client.images.get(image).attrs["Config"]
        except SandboxError as error:
            raise Missing(str(error)) from error
        except Exception as error:
            raise Missing(f"no image {image!r}; codedance sandbox build") from error
        command: list[str] = config["Entrypoint"] or config["Cmd"]
        self._python = command[0]
        libraries = PurePosixPath(command[-1]).parents[1] / "site"
        self._container: Any = self._client.containers.run(
            image,
            entrypoint=[self._python, "-c", "import time\nwhile True: time.sleep(60)"],
            command=[],
            detach=True,
            network_mode="none",
            auto_remove=True,
            environment={**ENVIRONMENT, "PYTHONPATH": str(libraries)},
            tmpfs={"/tmp": "rw,mode=1777"},
        )
        self._put_picture(picture.tobytes())

    def work(self, row: str) -> Callable[[], None] | None:
        """Return a function that does a row's work once; None for rows with sessions."""
        if row not in PROGRAMS:
            return None
        code, expected = one_shot(row)
        code = code.replace("open(0, 'rb')", "open('/tmp/picture', 'rb')")

        def turn() -> None:
            done = self._container.exec_run([self._python, "-c", code], demux=True)
            check_bytes(done.output[0] or b"", expected)

        return turn

    def close(self) -> None:
        """Remove the container."""
        self._container.remove(force=True)
        self._client.close()

    def _put_picture(self, pixels: bytes) -> None:
        """Write the image through a turn's input: archives do not reach a tmpfs."""
        code = "import sys; open('/tmp/picture', 'wb').write(open(0, 'rb').read())"
        started = self._client.api.exec_create(
            self._container.id, [self._python, "-c", code], stdin=True
        )
        stream = self._client.api.exec_start(started["Id"], socket=True)
        raw = getattr(stream, "_sock", stream)
        raw.sendall(pixels)
        raw.shutdown(1)
        while raw.recv(4096):
            pass
        stream.close()


class _Kernel:
    """A Jupyter kernel with the image loaded."""

    def __init__(self, picture: str) -> None:
        start: Any = importlib.import_module("jupyter_client.manager").start_new_kernel
        self._manager, self._client = start(
            kernel_name="python3",
            startup_timeout=_KERNEL_SECONDS,
            stderr=subprocess.DEVNULL,  # newer kernels print warnings between our tables
        )
        self._execute(
            "import base64\nfrom PIL import Image\n%matplotlib agg\n"
            f"input_image = Image.frombytes('RGB', (768, 768), base64.b64decode('{picture}'))"
        )

    def run(self, program: Program) -> None:
        """Execute a cell; its image is returned as PNG, which a trainer has to decode."""
        shown = self._execute(explicit(program) + ("\nout" if program.shows else ""))
        if len(shown) != bool(program.shows):
            raise RuntimeError("a benchmark's cell returned no image")
        for png in shown:
            Image.open(io.BytesIO(png)).load()

    def close(self) -> None:
        """Shut the kernel down."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def _execute(self, code: str) -> list[bytes]:
        shown: list[bytes] = []

        def hear(message: Any) -> None:  # noqa: ANN401 - jupyter_client has no types
            data = message["content"].get("data", {})
            if "image/png" in data:
                shown.append(base64.b64decode(data["image/png"]))

        reply: Any = self._client.execute_interactive(
            code, timeout=_KERNEL_SECONDS, output_hook=hear
        )
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"a benchmark's cell failed: {reply['content'].get('evalue')}")
        return shown


def jupyter(picture: Image.Image) -> Stateful:
    """Return a Jupyter kernel as a contestant.

    Raises:
        Missing: jupyter_client or ipykernel is not installed.
    """
    try:
        importlib.import_module("jupyter_client")
        importlib.import_module("ipykernel")
    except ImportError as error:
        raise Missing("pip install jupyter_client ipykernel") from error
    text = base64.b64encode(picture.tobytes()).decode()
    return Stateful("Jupyter kernel", lambda: _Kernel(text), stride=4)
