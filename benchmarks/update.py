"""An update against plain transformers on the same batch, with equal loss.

Run from the repository's root:

    $ python -m benchmarks.update --trajectories 64
"""

from __future__ import annotations

from typing import Annotated

import typer
from codedance.pipelines.cli.document import document
from codedance.pipelines.cli.options import Json

from .command import Output, Status, TrainedModel, run_command, show, write_out


def update(
    model: TrainedModel = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 10,
    trajectories: Annotated[int, typer.Option(min=8, help="Trajectories in the batch.")] = 64,
    seed: Annotated[int, typer.Option(help="Random seed of order and sampling.")] = 0,
    output: Output = None,
    json: Json = False,
) -> None:
    """Benchmark an update against plain transformers on the same batch, with equal loss."""
    from .measuring.model_tables import as_json, update_lines, update_table
    from .measuring.update import UpdateBench

    with document(json) as publish:
        with Status() as status:
            report = UpdateBench(
                model, rounds, trajectories, seed=seed, on_progress=status.update
            ).run()
        show([update_table(report)], update_lines(report))
        publish(write_out(as_json(report), output))


if __name__ == "__main__":
    run_command(update)
