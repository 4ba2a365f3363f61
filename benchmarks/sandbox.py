"""Turns, episodes, kills and memory of the sandbox, against bare ``exec`` and peers.

Run from the repository's root:

    $ python -m benchmarks.sandbox --rounds 12 --output sandbox.json
"""

from __future__ import annotations

from typing import Annotated

import typer
from codedance.pipelines.cli.document import document
from codedance.pipelines.cli.options import Json

from .command import Output, Status, run_command, show, write_out


def sandbox(
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 20,
    sessions: Annotated[
        int, typer.Option(min=0, help="Concurrent sessions; 0 leaves them out.")
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Random seed of order and image.")] = 0,
    image: Annotated[
        str | None, typer.Option(help="Image of the docker backend; else the default.")
    ] = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Benchmark turns, episodes, kills and memory at each isolation level against peers.

    Needs a quiet machine: the load is reported, and figures of a busy one mean little.
    """
    from .measuring.sandbox import SandboxBench
    from .measuring.tables import as_json, closing_lines, tables

    with document(json) as publish:
        with Status() as status:
            report = SandboxBench(
                rounds=rounds, sessions=sessions, seed=seed, image=image, on_progress=status.update
            ).run()
        show(tables(report), closing_lines(report))
        publish(write_out(as_json(report), output))


if __name__ == "__main__":
    run_command(sandbox)
