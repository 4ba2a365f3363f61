"""Turns, episodes, kills and memory of the sandbox, beside bare ``exec`` and peers.

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
    from .measuring.sandbox import SandboxBench
    from .measuring.tables import as_json, closing_lines, tables

    with document(json) as publish:
        with Status() as status:
            report = SandboxBench(
                rounds=rounds, sessions=sessions, seed=seed, image=image, on_progress=status.tell
            ).run()
        show(tables(report), closing_lines(report))
        publish(write_out(as_json(report), output))


if __name__ == "__main__":
    run_command(sandbox)
