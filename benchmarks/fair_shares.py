"""How long a short turn waits beside sessions that spin, before and after a change of the sandbox.

Run from the repository's root:

    $ python -m benchmarks.fair_shares --before main --output fair-shares.json
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from codedance.pipelines.runs.machine import load

from .command import Output, Status, run_command, show


def fair_shares(
    before: Annotated[str, typer.Option(help="Revision of the older version.")],
    spinning: Annotated[
        list[int] | None, typer.Option(help="Number of spinning sessions; repeatable. [4, 6]")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.5, help="Time limit of a block.")] = 6.0,
    output: Output = None,
) -> None:
    """Measure the wait of a neighbour's `print(1)` in this checkout's sandbox and an older one."""
    from .measuring.sandbox_sides import ROOT, checkout, run_side
    from .measuring.tables import Table

    begun = load()
    measured: dict[str, dict[str, float]] = {}
    with (
        Status() as status,
        checkout(before) as tree,
        tempfile.TemporaryDirectory(prefix="codedance-sides-") as folder,
    ):
        for count in spinning or [4, 6]:
            for name, side in (("before", tree), ("after", ROOT)):
                status.update(f"{count} spinning, {name}")
                words = [str(count), str(seconds)]
                measured[f"{count} spinning, {name}"] = run_side(
                    "fair_shares_side", side, Path(folder), words
                )
    head = ("", "longest wait", "median wait", "turns", "timed out")
    rows = tuple(
        (
            name,
            f"{each['longest']:.2f}",
            f"{each['median']:.3f}",
            str(each["turns"]),
            str(each["own"]),
        )
        for name, each in measured.items()
    )
    table = Table(f"seconds, limit of a block {seconds:g} s", head, rows)
    show([table], [f"load {begun:.2f} at the start, {load():.2f} at the end"])
    if output is not None:
        output.write_text(json.dumps(measured, indent=1), encoding="utf-8")


if __name__ == "__main__":
    run_command(fair_shares)
