"""Evaluation: policies on the same held-out tasks, greedy and sampled; every episode is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...envs.types import Task
from ...policies.interface import Policy, Sampling
from ..statistics import rate_of
from .collect import Session, collect
from .context import StageContext, StageResult
from .draws import held_out_tasks
from .runner import StageError

MODES = ("greedy", "sampled")


def run_evaluate(context: StageContext) -> StageResult:
    """Judge the policies that the run names: the pipeline's checkpoints, or a given one."""
    settings = context.preset.evaluate
    is_alone = "policies" in context.run.parameters
    tasks = held_out_tasks(context.preset.suite, settings.limit, whole=is_alone)
    if not tasks:
        raise StageError(f"the test split of {context.preset.suite} is empty: nothing to judge on")
    outputs: dict[str, object] = {"tasks": len(tasks), "accuracy": {}}
    accuracy: dict[str, float] = {}
    context.tracker.dataset(
        context.run.id,
        f"{context.preset.suite} test",
        digest=context.run.key[:16],
        profile={"tasks": len(tasks)},
    )
    for name, source in policies_of(context).items():
        policy = open_policy(source)
        for mode in MODES:
            phase = f"{name}/{mode}"
            collect(context, policy, tasks, _session(context, phase, mode))
            accuracy[phase] = _report_figures(context, phase, tasks)
    outputs["accuracy"] = accuracy
    outputs["policies"] = policies_of(context)
    return StageResult(outputs)


def policies_of(context: StageContext) -> Mapping[str, str]:
    """Give name and source of each policy to judge, in order."""
    given = context.run.parameters.get("policies")
    if given:
        return dict(given)
    return {name: context.input(name).outputs["model"] for name in ("sft", "grpo")}


def open_policy(source: str) -> Policy:
    """Load a policy by name, folder or hub id."""
    from ...policies import load_policy

    return load_policy(source)


def _session(context: StageContext, phase: str, mode: str) -> Session:
    settings = context.preset.evaluate
    return Session(
        phase=phase,
        samples=settings.samples if mode == "sampled" else 1,
        sampling=Sampling(
            temperature=settings.temperature if mode == "sampled" else 0.0,
            max_new_tokens=context.preset.max_new_tokens,
        ),
        max_turns=settings.max_turns,
        batch_size=settings.batch_size,
    )


def _report_figures(context: StageContext, phase: str, tasks: Sequence[Task]) -> float:
    """Log a phase's figures and a few of its episodes; give its accuracy."""
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
        f"{phase}/infrastructure": float(len(episodes) - len(valid)),
    }
    context.tracker.metrics(context.run.id, 0, figures)
    shown = [e.id for e in episodes][: context.preset.evaluate.traces]
    context.tracker.traces(context.run.id, shown, name=phase)
    return accuracy.share
