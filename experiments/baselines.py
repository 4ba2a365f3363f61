"""Baselines without code on the nano suite.

Run from the repository's root:

    $ python -m experiments.baselines --limit 210 --steps 300
"""

from __future__ import annotations

from typing import Annotated

import typer
from codedance.pipelines.cli.app import run_single
from codedance.pipelines.cli.cores import use_workers
from codedance.pipelines.cli.options import Json, SandboxName, Seed, Workers


def baselines(  # noqa: PLR0913 - the options of the command
    learn_from: Annotated[int, typer.Option(min=1, help="Number of train tasks.")] = 12_000,
    limit: Annotated[
        int, typer.Option(min=1, help="Held-out tasks; beyond the split's 2,000 more are drawn.")
    ] = 2000,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer updates per model.")] = 1500,
    seed: Seed = None,
    workers: Workers = None,
    sandbox: SandboxName = None,
    json: Json = False,
) -> None:
    """Evaluate baselines without code on the nano suite: majority, blind, and no tools.

    Trains a model without images and one without tools; an interrupted run resumes.
    """
    from codedance.pipelines.cli.document import document

    use_workers(workers)
    with document(json) as publish:
        publish(_show(learn_from, limit, steps, seed or 0, backend=sandbox))


def _show(tasks: int, limit: int, steps: int, seed: int, *, backend: str | None) -> object:
    """Train and evaluate, print and return the rows; checkpoints stay under ``baselines``."""
    from codedance.envs.suites.nano.suite import NanoSuite
    from codedance.pipelines.cli.output import say
    from codedance.pipelines.config.home import find_home
    from codedance.pipelines.config.sections.sandbox_settings import open_configured
    from codedance.pipelines.runs.used_sandbox import sandbox_for
    from codedance.policies import load_policy
    from codedance.policies.training.sft import SFTConfig

    from .no_code import BlindPolicy, as_markdown, judge, tabulate, train_baselines

    config = SFTConfig(
        steps=steps,
        learning_rate=2e-3,
        muon_factor=2.0,
        answer_weight=3.0,
        warmup_steps=min(40, steps // 10),
        max_tokens_per_micro_batch=1536,
        seed=seed,
    )
    folder = find_home().root / "baselines" / f"{tasks}-{steps}-{seed}"
    train, test = NanoSuite("train"), NanoSuite("test")
    shown = [train[index] for index in range(tasks)]
    held_out = [test.draw(index) for index in range(limit)]
    answers = {}
    with open_configured(sandbox_for("nano", backend)) as sandbox:
        for name, checkpoint in train_baselines(shown, config, folder):
            say(f"{name}: trained, {checkpoint}")
            policy = load_policy(str(checkpoint))
            policy = BlindPolicy(policy) if name == "blind" else policy
            answers[name] = judge(policy, held_out, sandbox=sandbox)
    rows = tabulate(shown, held_out, answers)
    say(as_markdown(rows))
    return rows


if __name__ == "__main__":
    run_single(baselines, "python -m experiments.baselines")
