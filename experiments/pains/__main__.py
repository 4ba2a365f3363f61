"""The field's pains, tried side by side; writes `results.md`.

Run from the repository's root; needs a package index for the other trainers' environments:

    $ python -m experiments.pains
    $ python -m experiments.pains --only resume --contestant ours
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from codedance.pipelines.cli.app import run_single
from codedance.pipelines.cli.output import say

from .running import CONTESTANTS, PAINS, run_pains


def pains(
    only: Annotated[list[str] | None, typer.Option(help="Name of a try; may be repeated.")] = None,
    contestant: Annotated[
        list[str] | None, typer.Option(help="ours, trl, verl or verifiers; may be repeated.")
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(help="Interpreter of a contestant, as NAME=PATH; else made with its pins."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File for the table; by default none if a part is run."),
    ] = None,
) -> None:
    """Try fifteen common pains of the field on ours, TRL, verl and verifiers."""
    from .environments import interpreters
    from .page import RESULTS, page

    names = [name for name in PAINS if not only or name in only]
    chosen = [name for name in CONTESTANTS if not contestant or name in contestant]
    if not names or not chosen or set(only or ()) - set(PAINS):
        raise typer.BadParameter(f"expected some of: {', '.join(PAINS)}", param_hint="--only")
    pythons = interpreters(chosen, python or ())
    results = run_pains(names, pythons, on_result=say)
    if output is None and (names, chosen) == ([*PAINS], [*CONTESTANTS]):
        output = RESULTS
    if output is not None:
        output.write_text(page(results), encoding="utf-8")
        say(f"results  {output}")


if __name__ == "__main__":
    run_single(pains, "python -m experiments.pains")
