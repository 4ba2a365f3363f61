"""Wall time of rollouts above the engine's own: ours against verifiers, verl and TRL.

Run from the repository's root, on a quiet machine:

    $ python -m benchmarks.orchestration --rounds 3 --output orchestration.json
"""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from typing import Annotated

import typer
from codedance.pipelines.cli.document import document
from codedance.pipelines.cli.options import Json

from .command import Output, Status, run_command, show, write_out


def orchestration(  # noqa: PLR0913 - each an option of the command
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 3,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes at the same time.")] = 256,
    only: Annotated[
        list[str] | None, typer.Option(help="Contestant by its name; may be repeated.")
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(help="Interpreter of a package, as NAME=PATH; else made with its pins."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the order.")] = 0,
    output: Output = None,
    json: Json = False,
) -> None:
    """Benchmark how much longer rollouts take than the engine that they wait for.

    A fake engine answers with recorded tokens at the latencies of a 7B model; needs a package
    index for the other trainers' environments.
    """
    from experiments.pains.environments import interpreters

    from .measuring.orchestration.contest import CONTESTANTS, run_contest
    from .measuring.orchestration.table import lines, table

    chosen = [one for one in CONTESTANTS if not only or one.name in only]
    if not chosen:
        names = ", ".join(one.name for one in CONTESTANTS)
        raise typer.BadParameter(f"expected one of: {names}", param_hint="--only")
    with document(json) as publish:
        with Status() as status:
            pythons = interpreters(dict.fromkeys(one.package for one in chosen), python or ())
            report = run_contest(
                chosen,
                pythons,
                rounds=rounds,
                episodes=episodes,
                seed=seed,
                on_progress=status.update,
            )
        show([table(report)], lines(report))
        publish(write_out(dumps(asdict(report), indent=1), output))


if __name__ == "__main__":
    run_command(orchestration)
