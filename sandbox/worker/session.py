"""A session's process: load the images, apply the isolation, serve blocks."""

from __future__ import annotations

import builtins
import linecache
import mmap
import os
import signal
import socket
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from .block import Block, Verdict, out_of_memory, run_block
from .framing import Channel
from .handled import HandledErrors
from .places import BLOCK_PREFIX
from .printed import Printed
from .reported_limits import report_limits
from .seeding import seed_random_sources
from .showing import Gallery, install_hooks
from .stopwatch import Look, Stopwatch


@dataclass(frozen=True)
class SessionPlan:
    """Configuration of a session, as far as the zygote knows it.

    Attributes:
        limits: `Limits` by field name, as the host sent them.
        picture_fds: Descriptor of the raw RGB of each input image.
        connection_fd: The session's end of its stream socket.
    """

    limits: dict[str, Any]
    picture_fds: Sequence[int]
    connection_fd: int


@dataclass(frozen=True)
class Codec:
    """msgpack's two functions, bound in the zygote before any model code runs."""

    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


def live(
    plan: SessionPlan, codec: Codec, isolate: Callable[[SessionPlan], Look | None]
) -> NoReturn:
    """Run the session; never returns to the zygote's loop."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection = socket.socket(fileno=plan.connection_fd)
        channel = Channel(connection, codec.pack, codec.unpack)
        try:
            seed, sizes = channel.receive()
            pictures = [
                _load_picture(fd, (width, height))
                for fd, (width, height) in zip(plan.picture_fds, sizes, strict=True)
            ]
            look = isolate(plan)
            seed_random_sources(int(seed))
            report_limits(plan.limits)
            tempfile.tempdir = os.environ.get("TMPDIR", "/tmp")  # else it would probe names
        except Exception as error:
            channel.send(["failed", f"{type(error).__name__}: {error}"])
            raise
        channel.send(["ready", os.getcwd()])
        _serve(channel, plan, pictures, look)
    finally:
        os._exit(0)


def _serve(channel: Channel, plan: SessionPlan, pictures: list[Any], look: Look | None) -> None:
    limits = plan.limits
    printed = Printed.of_session(limits["output_characters"])
    gallery = Gallery(printed.stdout, limits["images"], limits["image_pixels"])
    install_hooks(gallery)
    handled = HandledErrors()
    handled.install()
    namespace = _namespace(gallery, pictures)
    while True:
        turn, code, wall_seconds, cpu_seconds = channel.receive()
        source = code.decode("utf-8", "surrogatepass")
        filename = f"{BLOCK_PREFIX}{turn}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
        printed.begin(source)
        block = Block(source, filename, namespace, limits["memory_mb"], printed.places, handled)
        try:
            verdict = run_block(block, gallery, Stopwatch(wall_seconds, cpu_seconds, look))
            printed.end(namespace, verdict.traceback)
            _reply(channel, turn, verdict, (printed, gallery))
        except MemoryError:  # not even the reply fits: the host drops this process after it
            error = out_of_memory(limits["memory_mb"]).error
            channel.send([turn, "memory", "", "", error, []])


def _reply(
    channel: Channel,
    turn: int,
    verdict: Verdict,
    sources: tuple[Printed, Gallery],
) -> None:
    printed, gallery = sources
    pictures, note = gallery.take()
    sizes = [[picture.width, picture.height] for picture in pictures]
    texts = [printed.stdout.take(), printed.stderr.take() + note]
    channel.send(
        [turn, verdict.outcome, *texts, verdict.error, sizes],
        sum(picture.blob_bytes for picture in pictures),
        (part for picture in pictures for part in picture.parts()),
    )


def _namespace(gallery: Gallery, pictures: list[Any]) -> dict[str, Any]:
    """Create the block's ``__main__``: images, ``display``, and the names that ``site`` adds."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
    module.__dict__.update(
        __builtins__=builtins,
        display=gallery.display,
        input_images=pictures,
        input_image=pictures[0] if pictures else None,
    )
    return module.__dict__


def _load_picture(fd: int, size: tuple[int, int]) -> Any:  # noqa: ANN401 - Pillow loads in the zygote
    """Copy raw RGB from the host's sealed memory into a private image."""
    from PIL import Image

    width, height = size
    # Older kernels refuse a shared mapping of memory that is sealed against writing.
    sealed = mmap.mmap(fd, width * height * 3, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    with sealed, memoryview(sealed) as pixels:
        return Image.frombytes("RGB", (width, height), pixels)
