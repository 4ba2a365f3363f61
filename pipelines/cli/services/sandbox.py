"""``codedance sandbox``: the docker backend's image."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Json

if TYPE_CHECKING:
    from ....sandbox.docker.image.build import BuiltImage, Progress

sandbox_app = typer.Typer(
    name="sandbox", help="What model code runs in, where it is a container.", no_args_is_help=True
)


@sandbox_app.callback()
def sandbox() -> None:
    """What model code runs in, where it is a container."""


@sandbox_app.command()
def build(
    tag: Annotated[str, typer.Option(help="Name of the image.")] = "codedance-sandbox",
    libraries: Annotated[
        str, typer.Option(help="Modules to have inside, with commas; empty for the usual ten.")
    ] = "",
    python: Annotated[
        str | None, typer.Option(help="Interpreter to copy; without it, this one.")
    ] = None,
    json: Json = False,
) -> None:
    """Build the docker backend's image from this machine's own files; no registry is asked."""
    from ....sandbox.docker.image.build import IMAGE_LIBRARIES, build_image
    from ..document import document
    from ..output import say

    names = tuple(name.strip() for name in libraries.split(",") if name.strip())
    with document(json) as publish:
        with _Bar() as bar:
            built = build_image(
                tag, libraries=names or IMAGE_LIBRARIES, python=python, progress=bar.progress
            )
        for line in _told(built):
            say(line)
        publish(built)


def _told(built: BuiltImage) -> list[str]:
    lines = [f"built    {built.name} ({built.megabytes} MB, {built.id[:19]})"]
    if built.missing:
        lines.append(f"left out {', '.join(built.missing)}: this interpreter does not have them")
    return [*lines, "use it   --sandbox docker, or sandbox: {backend: docker} in flows.yaml"]


class _Bar:
    """A progress bar in a terminal, silence elsewhere."""

    def __enter__(self) -> _Bar:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        console = Console(file=sys.stderr)
        self._bars = Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        )
        self._bars.start()
        self._task = self._bars.add_task("packing files", total=None)
        return self

    @property
    def progress(self) -> Progress:
        """Moves the bar."""
        return self._move

    def _move(self, done: int, total: int) -> None:
        words = "packing files" if done < total else "handing over to the engine"
        self._bars.update(self._task, completed=done, total=total, description=words)

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


@sandbox_app.command()
def digest() -> None:
    """Print what an image's label org.codedance.worker must be: for the Dockerfile."""
    from ....sandbox.docker.engine import worker_digest
    from ..output import say

    say(worker_digest())
