"""Our engine against ``model.generate``, our GRPO step against TRL's.

Run from the repository's root:

    $ python -m benchmarks.rollout --rounds 5 --json
"""

from __future__ import annotations

from typing import Annotated

import typer
from codedance.pipelines.cli.document import document
from codedance.pipelines.cli.options import Json

from .command import Output, Status, TrainedModel, run_command, show, write_out


def rollout(  # noqa: PLR0913 - each an option of the command
    model: TrainedModel = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 5,
    tasks: Annotated[int, typer.Option("--groups", min=1, help="Number of tasks.")] = 8,
    samples: Annotated[int, typer.Option(min=2, help="Trajectories per task.")] = 8,
    pause: Annotated[float, typer.Option(min=0.0, help="Seconds per tool call.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Random seed of order and sampling.")] = 0,
    output: Output = None,
    json: Json = False,
) -> None:
    """Benchmark our engine against model.generate, our GRPO step against TRL's.

    Same weights, same tasks, same tool; needs a quiet machine.
    """
    from .measuring.model_tables import as_json, rollout_lines, rollout_tables
    from .measuring.rollout import RolloutBench

    with document(json) as publish:
        with Status() as status:
            report = RolloutBench(
                model,
                rounds,
                tasks,
                samples,
                pause_seconds=pause,
                seed=seed,
                on_progress=status.update,
            ).run()
        show(rollout_tables(report), rollout_lines(report))
        publish(write_out(as_json(report), output))


if __name__ == "__main__":
    run_command(rollout)
