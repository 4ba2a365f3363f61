"""Evaluation of policies on the same held-out tasks, greedy and sampled; episodes are stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from ...envs.rewards.evidence import record_evidence
from ...envs.rewards.registry import with_terms
from ...envs.rewards.terms import needs_evidence, score_trajectory
from ...envs.types import Task
from ...policies.interface import Policy, Sampling
from ...policies.rollouts.trained_with import trained_interface
from ..analysis.model_comparison import FILE_NAME, write_results
from ..analysis.results import difference_lines, lost_lines, summarise, table_head, table_rows
from ..analysis.statistics import rate_of
from ..charts.markdown_table import markdown_table
from ..config.registry import stage
from ..config.settings import EvaluateSettings, GRPOSettings
from ..config.strict_model import read_as
from ..runs.context import StageContext, StageResult
from ..runs.run_page import digest_of
from ..runs.runner import StageError
from ..store.episodes import Episode
from ..store.lineage import LOST, StageRun
from ..store.store import Store
from ..tracking.tracker import Terms
from .asked import opened_policy, report_usage
from .collect import Session, collect
from .draws import held_out_tasks

MODES = ("greedy", "sampled")
DEFAULT_RATE = 0.5
"""Assumed pass rate of a task that curation has not seen."""


def evaluation_lines(store: Store, run: StageRun, _folder: Path) -> list[str]:
    """Return the results of an evaluation, in Markdown."""
    summary = summarise(store, run)
    lines = [f"- {line}" for line in (*difference_lines(summary), *lost_lines(summary))]
    for mode in summary.modes:
        table = markdown_table(table_head(summary), table_rows(summary, mode))
        lines += ["", f"**{mode}**", "", *table]
    return lines


@stage(
    "evaluate",
    inputs=("sft", "grpo"),
    settings=EvaluateSettings,
    runs_code=True,
    reads=("interface", "max_new_tokens"),
    results=evaluation_lines,
)
def run_evaluate(context: StageContext) -> StageResult:
    """Evaluate the checkpoints on the same held-out tasks, greedy and sampled.

    A run with policies of its own, outside of a pipeline run, evaluates those.

    Raises:
        EpisodesLostError: Infrastructure lost half of the episodes of a phase or more; those with a
            verdict are kept.
        StageError: The test split is empty.
    """
    settings = read_as(context.preset.evaluate, EvaluateSettings)
    is_alone = "policies" in context.run.parameters
    tasks = held_out_tasks(context.preset.suite, settings.limit, whole=is_alone)
    if not tasks:
        raise StageError(f"the test split of {context.preset.suite} is empty: nothing to evaluate")
    accuracy: dict[str, float] = {}
    lost: dict[str, int] = {}
    _record_tasks(context, tasks)
    for name, source in policies_of(context).items():
        with opened_policy(context, source) as policy:
            for mode in MODES:
                phase = f"{name}/{mode}"
                found = collect(context, policy, tasks, _session(context, policy, phase, mode))
                found.check()
                if found.lost:
                    lost[phase] = found.lost
                    context.progress.say(f"{phase}: {found.lost} lost: {found.losses.reason}")
                accuracy[phase] = _report_figures(context, phase, found.lost)
            report_usage(context, name, policy)
    _record_verdict(context)
    outputs = {"tasks": len(tasks), "accuracy": accuracy, "policies": policies_of(context)}
    return StageResult(outputs | ({LOST: lost} if lost else {}))


def policies_of(context: StageContext) -> Mapping[str, str]:
    """Return name and source of each policy to evaluate, in order."""
    given = context.run.parameters.get("policies")
    if given:
        return dict(given)
    return {name: context.input(name).outputs["model"] for name in ("sft", "grpo")}


def _record_tasks(context: StageContext, tasks: Sequence[Task]) -> None:
    """Log the tasks as the dataset of the run."""
    digest = digest_of(context.store.add_tasks(tasks).values())
    name, profile = f"{context.preset.suite} test", {"tasks": len(tasks)}
    context.tracker.dataset(context.run.id, name, digest=digest, profile=profile, use="evaluation")
    context.tracker.describe(context.run.id, tags={"codedance.data_digest": digest})


def _session(context: StageContext, policy: Policy, phase: str, mode: str) -> Session:
    settings = read_as(context.preset.evaluate, EvaluateSettings)
    interface = context.preset.interface
    return Session(
        phase=phase,
        samples=settings.samples if mode == "sampled" else 1,
        sampling=Sampling(
            temperature=settings.temperature if mode == "sampled" else 0.0,
            max_new_tokens=context.preset.max_new_tokens,
        ),
        max_turns=settings.max_turns,
        batch_size=settings.batch_size,
        interface=trained_interface(policy) if interface == "code" else interface,
    )


def _report_figures(context: StageContext, phase: str, lost: int) -> float:
    """Log the metrics of a phase and a few of its episodes; return its accuracy."""
    episodes = context.store.episodes(context.run.id, phase)
    valid = [e for e in episodes if e.is_valid and e.accuracy is not None]
    accuracy = rate_of(e.accuracy == 1.0 for e in valid)
    calls = sum(e.tool_calls for e in valid)
    figures = {
        f"{phase}/accuracy": accuracy.share,
        f"{phase}/accuracy_low": accuracy.low,
        f"{phase}/accuracy_high": accuracy.high,
        f"{phase}/tool_calls": calls / max(1, len(valid)),
        f"{phase}/execution_success": sum(e.tool_successes for e in valid) / max(1, calls),
        f"{phase}/infrastructure": float(lost),
        f"{phase}/session_losses": float(sum(e.sessions_lost for e in episodes)),
    }
    for kind, some in by_kind(valid).items():
        figures[f"{phase}/accuracy/{kind}"] = rate_of(e.accuracy == 1.0 for e in some).share
    context.tracker.metrics(context.run.id, 0, figures)
    _show_some(context, phase, episodes)
    return accuracy.share


def by_kind(episodes: Sequence[Episode]) -> dict[str, list[Episode]]:
    """Group episodes by family and by difficulty."""
    kinds: defaultdict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        kinds[f"family/{episode.family}"].append(episode)
        kinds[f"difficulty/{episode.difficulty}"].append(episode)
    return dict(kinds)


def _show_some(context: StageContext, phase: str, episodes: Sequence[Episode]) -> None:
    """Log a few episodes of every family and outcome as traces, with their reward terms.

    Evaluation needs no reward and records no evidence; for these few episodes it is recorded.
    """
    shown = choose_shown(episodes, read_as(context.preset.evaluate, EvaluateSettings).traces)
    training = read_as(context.preset.grpo, GRPOSettings)
    reward = with_terms(training.reward, training.reward_terms)
    terms: dict[int, Terms] = {}
    for number, one in zip(shown, context.store.trajectories(shown), strict=True):
        mu = DEFAULT_RATE if one.pass_rate is None else one.pass_rate
        if needs_evidence(one, group_accuracy=mu, reward=reward):
            one = record_evidence(one, one.images, context.sandbox())
        terms[number] = score_trajectory(one, group_accuracy=mu, reward=reward)
    context.tracker.traces(context.run.id, shown, name=phase, terms=terms)


def choose_shown(episodes: Sequence[Episode], count: int) -> list[int]:
    """Return the ids of ``count`` episodes, alternating between families and outcomes."""
    kinds: defaultdict[tuple[str, float | None], list[int]] = defaultdict(list)
    for episode in episodes:
        kinds[episode.family, episode.accuracy].append(episode.id)
    rounds = zip_longest(*kinds.values())
    return [number for one in rounds for number in one if number is not None][:count]


def _record_verdict(context: StageContext) -> None:
    """Submit the checkpoints for comparison with the champion, by their results on each task."""
    if context.run.inputs:
        write_results(context.store, context.run, context.folder / FILE_NAME)
