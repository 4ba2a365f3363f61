"""``codedance probe``: tool ablation, whether the tool's replies matter to the answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion
from ..exit_codes import leave_incomplete
from ..options import Json, Set
from ..server_options import BaseUrl, Notes, load_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ....envs.types import Task
    from ....policies.analysis.probe import ProbeFigures
    from ....policies.interface import Policy
    from ...config.sections.sandbox_settings import SandboxSettings
    from ...runs.session import RunSession
    from ...store.lineage import StageRun

ProbedRun = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="Run id, or latest: its suite and sandbox. Without --policy, the latest.",
        autocompletion=completion.runs,
    ),
]


def probe(  # noqa: PLR0913 - the options of the command
    run: ProbedRun = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of held-out tasks.")] = 42,
    policy: Annotated[
        str | None,
        typer.Option(
            help="Policy to use instead of the run's last checkpoint.",
            autocompletion=completion.policies,
        ),
    ] = None,
    base_url: BaseUrl = None,
    notes: Notes = None,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Ablate each tool reply and measure the effect on the answer.

    For every call the reply is withheld, its images are blanked, or it is swapped with a
    sibling's: the reply to another task of the same family.
    """
    from ...config.presets import read_overrides
    from ...runs.session import open_session
    from ...runs.used_sandbox import recorded_sandbox, sandbox_for, with_sandbox_overrides
    from ...stages.draws import held_out_tasks
    from ..document import document
    from ..output import say

    overrides = read_overrides(settings)
    with document(json) as publish, open_session() as session:
        pipeline, source = _source(session, run, policy)
        if pipeline is None:
            suite, sandbox = "nano", sandbox_for(source, overrides=overrides)
        else:
            suite = str(pipeline.parameters["suite"])
            sandbox = with_sandbox_overrides(recorded_sandbox(pipeline), overrides)
        acting = load_named(source, base_url=base_url, notes=notes)
        lines, metrics, lost = _probe(
            session, source, acting, held_out_tasks(suite, limit), sandbox
        )
        for line in lines:
            say(line)
        publish({"policy": source, "tasks": limit, "figures": metrics, "lost": lost})
        if pipeline is not None:
            session.tracker.metrics(pipeline.id, 0, metrics)
            path = session.home.reports / pipeline.id / "probe.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            session.tracker.artifact(pipeline.id, path, folder="report")
            say(f"written to {path}")
    leave_incomplete({"is_complete": not lost})


def _source(
    session: RunSession, run: str | None, policy: str | None
) -> tuple[StageRun | None, str]:
    """Return the pipeline run, if there is one, and the policy to ablate."""
    from ...runs.requests import find_pipeline
    from ...runs.runner import find_input

    if policy is not None and run is None:
        return None, policy
    pipeline = find_pipeline(session, run or "latest")
    return pipeline, policy or str(find_input(session, pipeline, "grpo").outputs["model"])


def _probe(
    session: RunSession,
    source: str,
    acting: Policy,
    tasks: Sequence[Task],
    settings: SandboxSettings,
) -> tuple[list[str], dict[str, float], int]:
    """Play and ablate; return the lines of the table, the metrics, and the number lost."""
    from ....policies import rollout
    from ....policies.analysis.probe import crops_held, summarise
    from ....policies.analysis.probe import probe as probe_calls
    from ....policies.inference.answer_scorer import TokenAnswerScorer
    from ....policies.inference.vlm import VisionLanguagePolicy
    from ....policies.interface import Sampling
    from ....policies.rollouts.losses import Losses

    sandbox = session.sandbox(settings)
    sampling, losses, cut_off = Sampling(temperature=0.0), Losses(), Losses()
    session.progress.say(f"playing {len(tasks)} tasks …")
    played = rollout(
        acting, tasks, sandbox=sandbox, sampling=sampling, evidence=False, on_lost=losses
    )
    losses.check(len(played))
    episodes = list(zip(tasks, played, strict=True))
    scorer = TokenAnswerScorer(acting) if isinstance(acting, VisionLanguagePolicy) else None
    calls = list(probe_calls(acting, episodes, sandbox=sandbox, scorer=scorer, on_lost=cut_off))
    cut_off.check(len(calls) + cut_off.count, of="continuations")
    figures, held = summarise(calls), crops_held(episodes)
    lines = [
        f"{Path(source).name}: {len(tasks)} tasks, {sum(bool(t.tool_turns) for t in played)} with "
        "a call",
        *([f"{losses.count} lost and left out: {losses.reason}"] if losses.count else []),
        *([f"{cut_off.count} continuations lost: {cut_off.reason}"] if cut_off.count else []),
        *probe_lines(figures, held),
    ]
    metrics = {f"probe/{one.change}/dependence": one.dependence for one in figures}
    metrics |= {f"probe/{one.change}/logp_gain": one.gain for one in figures}
    if held:
        metrics["probe/crops_held"] = sum(held) / len(held)
    return lines, metrics, losses.count + cut_off.count


def probe_lines(figures: Sequence[ProbeFigures], held: Sequence[bool]) -> list[str]:
    """Return the table, 80 columns wide."""
    if not figures:
        return ["no call was made: there is nothing to ablate"]
    head = f"{'reply':<12}{'calls':>7}{'right':>9}{'then':>9}{'dependence':>13}{'log p gained':>15}"
    lines = ["", head]
    lines += [
        f"{one.change:<12}{one.calls:>7}{one.accuracy:>9.1%}{one.changed_accuracy:>9.1%}"
        f"{_figure(one.dependence):>13}{_figure(one.gain):>15}"
        for one in figures
    ]
    lines += ["", "dependence: 0 if the tool is ignored, 1 if every right answer depends on it"]
    if held:
        lines.append(f"{sum(held)} of {len(held)} crops contained the true region")
    return lines


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
