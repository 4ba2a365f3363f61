"""Our vector environment compared with Gymnasium's two, with real sandbox turns.

Run from the repository's root:

    $ python -m benchmarks.envs
    $ python -m benchmarks.envs --count 8 --count 64
"""

from __future__ import annotations

from typing import Annotated

import typer
from codedance.pipelines.cli.document import document
from codedance.pipelines.cli.options import Json

from .command import Output, Status, run_command, show, write_out


def envs(
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 3,
    count: Annotated[
        list[int] | None, typer.Option(min=1, help="Environments; default 1, 8, 64 and 256.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of tasks and order.")] = 0,
    output: Output = None,
    json: Json = False,
) -> None:
    """Benchmark our vector environment and Gymnasium's two, with real sandbox turns.

    Steps per second, time to the first step, memory, and leftovers after close().
    """
    from .measuring.env_tables import env_json, env_lines, env_tables
    from .measuring.envs import COUNTS, EnvsBench

    with document(json) as publish:
        with Status() as status:
            report = EnvsBench(rounds, count or COUNTS, seed, status.update).run()
        show(env_tables(report), env_lines(report))
        publish(write_out(env_json(report), output))


if __name__ == "__main__":
    run_command(envs)
