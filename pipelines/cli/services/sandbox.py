"""``codedance sandbox``: the image of the docker backend."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Json

if TYPE_CHECKING:
    from ....sandbox.docker.image.build import BuiltImage, Progress

sandbox_app = typer.Typer(
    name="sandbox", help="Container image in which model code runs.", no_args_is_help=True
)


@sandbox_app.callback()
def sandbox() -> None:
    """Container image in which model code runs."""


@sandbox_app.command()
def build(
    tag: Annotated[str, typer.Option(help="Name of the image.")] = "codedance-sandbox",
    libraries: Annotated[
        str, typer.Option(help="Modules to include, comma-separated; empty for the default ten.")
    ] = "",
    python: Annotated[
        str | None, typer.Option(help="Interpreter to copy; by default this one.")
    ] = None,
    json: Json = False,
) -> None:
    """Build the docker backend's image from this machine's files, without a registry."""
    from ....sandbox.docker.image.build import IMAGE_LIBRARIES, build_image
    from ..document import document
    from ..output import say

    names = tuple(name.strip() for name in libraries.split(",") if name.strip())
    with document(json) as publish:
        with _Bar() as bar:
            built = build_image(
                tag, libraries=names or IMAGE_LIBRARIES, python=python, progress=bar.progress
            )
        for line in _built_lines(built):
            say(line)
        publish(built)


def _built_lines(built: BuiltImage) -> list[str]:
    lines = [f"built    {built.name} ({built.megabytes} MB, {built.id[:19]})"]
    if built.missing:
        lines.append(f"left out {', '.join(built.missing)}: not installed in this interpreter")
    return [*lines, "use it   --sandbox docker, or sandbox: {backend: docker} in flows.yaml"]


class _Bar:
    """A progress bar in a terminal, nothing elsewhere."""

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
        """Callback that updates the bar."""
        return self._move

    def _move(self, done: int, total: int) -> None:
        words = "packing files" if done < total else "loading into the engine"
        self._bars.update(self._task, completed=done, total=total, description=words)

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


@sandbox_app.command()
def digest() -> None:
    """Print the value of an image's label org.codedance.worker, for the Dockerfile."""
    from ....sandbox.docker.engine import worker_digest
    from ..output import say

    say(worker_digest())
