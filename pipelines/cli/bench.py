"""``codedance bench``: what things cost, beside what others use."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import completion
from .options import Json

if TYPE_CHECKING:
    from ..bench.tables import Table

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Also write all of it, every round, into this file."),
]
TrainedModel = Annotated[
    str | None,
    typer.Option(
        "--policy",
        "--model",
        help="Folder of a trained nano model; without it, the shipped.",
        autocompletion=completion.policies,
    ),
]

bench_app = typer.Typer(
    name="bench", help="Measure what things cost, side by side.", no_args_is_help=True
)

_WIDTH = 80


@bench_app.callback()
def bench() -> None:
    """Measure what things cost, side by side."""


@bench_app.command()
def sandbox(
    rounds: Annotated[int, typer.Option(min=1, help="How often all is measured.")] = 20,
    sessions: Annotated[
        int, typer.Option(min=0, help="How many live at once; 0 leaves that out.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of the order in a round, and the picture.")] = 0,
    image: Annotated[
        str | None, typer.Option(help="The docker backend's image; without it, the usual.")
    ] = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Time turns, episodes, kills and memory: ours in each tier beside bare exec and peers.

    Needs a quiet machine: the load is told, and figures of a busy one mean little.
    """
    from ..bench.sandbox import SandboxBench
    from ..bench.tables import as_json, closing_lines, tables
    from .document import document

    with document(json) as publish:
        with _Status() as status:
            report = SandboxBench(
                rounds=rounds, sessions=sessions, seed=seed, image=image, told=status.tell
            ).run()
        _tell(tables(report), closing_lines(report))
        publish(_written(as_json(report), output))


@bench_app.command()
def rollout(  # noqa: PLR0913 - each an option of the command
    model: TrainedModel = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often all is measured.")] = 5,
    tasks: Annotated[int, typer.Option("--groups", min=1, help="Different tasks.")] = 8,
    samples: Annotated[int, typer.Option(min=2, help="Trajectories a task.")] = 8,
    pause: Annotated[float, typer.Option(min=0.0, help="What a tool call takes, seconds.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the order in a round, and of sampling.")] = 0,
    output: Output = None,
    json: Json = False,
) -> None:
    """Time our engine beside model.generate, our GRPO step beside TRL's.

    Same weights, same tasks, same tool; needs a quiet machine.
    """
    from ..bench.model_tables import as_json, rollout_lines, rollout_tables
    from ..bench.rollout import RolloutBench
    from .document import document

    with document(json) as publish:
        with _Status() as status:
            report = RolloutBench(
                model, rounds, tasks, samples, pause_seconds=pause, seed=seed, told=status.tell
            ).run()
        _tell(rollout_tables(report), rollout_lines(report))
        publish(_written(as_json(report), output))


@bench_app.command()
def update(
    model: TrainedModel = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often all is measured.")] = 10,
    trajectories: Annotated[int, typer.Option(min=8, help="In the batch.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the order in a round, and of sampling.")] = 0,
    output: Output = None,
    json: Json = False,
) -> None:
    """Time an update beside plain transformers on the same batch, with equal loss."""
    from ..bench.model_tables import as_json, update_lines, update_table
    from ..bench.update import UpdateBench
    from .document import document

    with document(json) as publish:
        with _Status() as status:
            report = UpdateBench(model, rounds, trajectories, seed=seed, told=status.tell).run()
        _tell([update_table(report)], update_lines(report))
        publish(_written(as_json(report), output))


@bench_app.command()
def families(json: Json = False) -> None:
    """Try every model family that is taken: load, write, return pictures, compare, train.

    On tiny random models made here; no hub is asked. Half a minute.
    """
    from ..bench.families import trial_lines, trial_table, try_families
    from .document import document

    with document(json) as publish:
        with _Status() as status:
            trials = []
            for trial in try_families():
                status.tell(trial.name)
                trials.append(trial)
        _tell([trial_table(trials)], trial_lines(trials))
        publish(trials)


@bench_app.command()
def store(
    trajectories: Annotated[
        int, typer.Option(min=64, help="In each store when it is checked and weighed.")
    ] = 2000,
    rounds: Annotated[int, typer.Option(min=1, help="How often all is measured.")] = 5,
    postgres: Annotated[
        str | None,
        typer.Option(help="Address of an empty database; without it, a server is started."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order in a round, and what is stored.")] = 0,
    output: Output = None,
    json: Json = False,
) -> None:
    """Time writing, reading and checking trajectories: SQLite beside PostgreSQL.

    Needs a quiet machine: the load is told, and figures of a busy one mean little.
    """
    from ..bench.store import StoreBench
    from ..bench.store_tables import as_json, store_lines, store_tables
    from .document import document

    with document(json) as publish:
        with _Status() as status:
            report = StoreBench(trajectories, rounds, seed, postgres, status.tell).run()
        _tell(store_tables(report), store_lines(report))
        publish(_written(as_json(report), output))


@bench_app.command()
def envs(
    rounds: Annotated[int, typer.Option(min=1, help="How often all is measured.")] = 3,
    count: Annotated[
        list[int] | None, typer.Option(min=1, help="Environments at once: 1, 8, 64 and 256.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the tasks, and of the order in a round.")] = 0,
    output: Output = None,
    json: Json = False,
) -> None:
    """Time our vector environment beside Gymnasium's two, with real sandbox turns.

    Steps a second, time to the first step, memory, and what close() leaves behind.
    """
    from ..bench.env_tables import env_json, env_lines, env_tables
    from ..bench.envs import COUNTS, EnvsBench
    from .document import document

    with document(json) as publish:
        with _Status() as status:
            report = EnvsBench(rounds, count or COUNTS, seed, status.tell).run()
        _tell(env_tables(report), env_lines(report))
        publish(_written(env_json(report), output))


def _tell(tables: Iterable[Table], lines: Iterable[str]) -> None:
    from .output import say

    for table in tables:
        _show(table)
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        say(textwrap.fill(line, _WIDTH, subsequent_indent=indent))


def _written(text: str, path: Path | None) -> object:
    """Write what was measured into a file, if one was named, and give it as a document."""
    from json import loads

    from .output import say

    if path is not None:
        path.write_text(text, encoding="utf-8")
        say(f"all of it: {path}")
    return loads(text)


def _show(table: Table) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable

    width = None if sys.stdout.isatty() else _WIDTH
    shown = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(table.head):
        shown.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    for row in table.rows:
        shown.add_row(*row)
    console = Console(width=width)
    console.print(table.title, style="bold")
    console.print(shown, no_wrap=True)


class _Status:
    """A line that says what is being measured: in a terminal it is replaced, elsewhere absent."""

    def __enter__(self) -> _Status:
        from rich.console import Console

        self._status = Console(stderr=True).status("")
        if sys.stderr.isatty():
            self._status.start()
        return self

    def tell(self, text: str) -> None:
        """Show what is being done."""
        self._status.update(text)

    def __exit__(self, *_: object) -> None:
        self._status.stop()
