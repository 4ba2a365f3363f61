"""Writing, reading and checking trajectories: SQLite and PostgreSQL.

Run from the repository's root:

    $ python -m benchmarks.store --trajectories 2000 --rounds 5
"""

from __future__ import annotations

from typing import Annotated

import typer
from codedance.pipelines.cli.document import document
from codedance.pipelines.cli.options import Json

from .command import Output, Status, run_command, show, write_out


def store(
    trajectories: Annotated[
        int, typer.Option(min=64, help="Trajectories per store when it is checked.")
    ] = 2000,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 5,
    postgres: Annotated[
        str | None,
        typer.Option(help="Address of an empty database; else a server is started."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of order and data.")] = 0,
    output: Output = None,
    json: Json = False,
) -> None:
    """Benchmark writing, reading and checking trajectories: SQLite and PostgreSQL.

    Needs a quiet machine: the load is reported, and figures of a busy one mean little.
    """
    from .measuring.store import StoreBench
    from .measuring.store_tables import as_json, store_lines, store_tables

    with document(json) as publish:
        with Status() as status:
            report = StoreBench(trajectories, rounds, seed, postgres, status.update).run()
        show(store_tables(report), store_lines(report))
        publish(write_out(as_json(report), output))


if __name__ == "__main__":
    run_command(store)
