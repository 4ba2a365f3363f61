"""What a change of the sandbox costs: start, trivial turn and crop turn, before and after.

Run from the repository's root:

    $ python -m benchmarks.sandbox_versions --before main --output sandbox-versions.json
"""

from __future__ import annotations

import json
from typing import Annotated

import typer
from codedance.pipelines.runs.machine import load

from .command import Output, Status, run_command, show


def sandbox_versions(
    before: Annotated[str, typer.Option(help="Revision of the older version.")],
    pairs: Annotated[int, typer.Option(min=1, help="Number of pairs.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds within each process.")] = 7,
    seed: Annotated[int, typer.Option(help="Random seed of orders, image and intervals.")] = 0,
    output: Output = None,
) -> None:
    """Compare this checkout's sandbox with an older one, each in processes of its own.

    Exits with 1 if a cost rose: its interval is above 1 and its median at least 1.03. Needs a
    quiet machine.
    """
    from .measuring.sandbox_sides import checkout, compare, cost_table, costs

    begun = load()
    with Status() as status, checkout(before) as tree:
        measured = compare(tree, pairs=pairs, rounds=rounds, seed=seed, on_progress=status.update)
    found = costs(measured, seed)
    lines = [f"{pairs} pairs; load {begun:.2f} at the start, {load():.2f} at the end"]
    show([cost_table(found)], lines)
    if output is not None:
        output.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    dearer = [each for each in found if not each.is_kept and each.contestant != "bare exec"]
    raise typer.Exit(1 if dearer else 0)


if __name__ == "__main__":
    run_command(sandbox_versions)
