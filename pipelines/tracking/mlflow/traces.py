"""Stored trajectories as MLflow traces: a span per turn, with code, output, images and rewards.

A trace has the tag ``codedance.trajectory``, which identifies one that was sent before. Spans are
consecutive: a turn lasts as long as the policy's generation and the sandbox's execution. Where the
generation was not measured (an older store), it counts as a millisecond.

The right answer is attached to the trace as an expectation and as a tag. It is read from the store
for MLflow only; no message of the trajectory contains it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import mlflow
from mlflow.entities import AssessmentSource, LiveSpan, SpanType
from mlflow.tracing.provider import safe_set_span_in_context

from ....envs.types import Trajectory, Turn
from ....policies.inference.openai_client import data_uri, openai_message
from ...store.lineage import StageRun
from ...store.store import Store
from ...viewer.advantages import Advantages, sibling_advantages, turn_penalty
from ..tracker import Terms
from .runs import KnownRun

KEY_TAG = "codedance.trajectory"
GROUP_TAG = "codedance.group"
EXPECTATION = "expected_response"
"""Name under which MLflow's judges look for the right answer."""
SOURCE = AssessmentSource(source_type="CODE", source_id="codedance")
SHOWN_TEXT = 200
LEAST_NANOSECONDS = 1_000_000
MOST_TRACES = 500
"""Traces per page of a search, the maximum that MLflow's servers return."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A scored trajectory with its tags, its right answer and the penalty of a failed turn."""

    trajectory: Trajectory
    tags: dict[str, str]
    truth: str
    advantages: Advantages
    penalty: float


def log_traces(
    store: Store, run: StageRun, name: str, chosen: Mapping[str, Any], *, known: KnownRun
) -> None:
    """Log chosen trajectories as traces of an MLflow run, except those logged already.

    They are named by id under their phase or step, as `Tracker.traces` records them; those that a
    resumed run has replaced since are left out. MLflow is the one at the tracking URI that is set.

    Raises:
        ConnectionError: MLflow did not accept all traces.
    """
    truths = store.answers(chosen["trajectories"])
    ids = [number for number in chosen["trajectories"] if number in truths]
    group = store.trajectories(ids)
    advantages, penalty = sibling_advantages(run, group), turn_penalty(run)
    cases: dict[str, _Case] = {}
    for place, (number, one) in enumerate(zip(ids, group, strict=True)):
        key = f"{name}/{place}/{one.task_id}"  # the same however often the trajectory is made
        tags = {
            KEY_TAG: key,
            GROUP_TAG: name,
            "task": one.task_id,
            "policy": one.policy_id,
            "ending": str(one.ending),
            "accuracy": str(one.accuracy),
            "tool_calls": str(len(one.tool_turns)),
            "trajectory": str(number),
            "right_answer": truths[number][:SHOWN_TEXT],
        }
        scored = replace(one, reward_terms=chosen["terms"].get(str(number)) or one.reward_terms)
        cases[key] = _Case(scored, tags, truths[number], advantages[place], penalty)
    missing = _missing(cases, known)
    for key in missing:
        _log_trace(cases[key], known)
    mlflow.flush_trace_async_logging()
    if left := _missing(missing, known):
        raise ConnectionError(f"{len(left)} of {len(missing)} traces did not arrive")


def _missing(keys: Iterable[str], run: KnownRun) -> list[str]:
    """Return the keys whose traces the run does not have, in order.

    All traces of the run are paged through, newest first, until none is missing: a filter by the
    group would have to quote its name, and MLflow's filters cannot quote every name.
    """
    missing = dict.fromkeys(keys)
    token: str | None = None
    while missing:
        traces = mlflow.MlflowClient().search_traces(
            locations=[run.experiment],
            run_id=run.id,
            max_results=MOST_TRACES,
            page_token=token,
            include_spans=False,
        )
        for trace in traces:
            missing.pop(trace.info.tags.get(KEY_TAG, ""), None)
        token = traces.token
        if not token:
            break
    return list(missing)


def _log_trace(case: _Case, run: KnownRun) -> None:
    one = case.trajectory
    begun = time.time_ns() - sum(sum(_times(turn)) for turn in one.turns) - LEAST_NANOSECONDS
    session = f"{case.tags[GROUP_TAG]} {one.task_id}"
    root = mlflow.start_span_no_context(
        one.task_id,
        span_type=SpanType.AGENT,
        inputs={"messages": [openai_message(message) for message in one.opening]},
        tags=case.tags,
        metadata={"mlflow.sourceRun": run.id, "mlflow.trace.session": session},
        experiment_id=run.experiment,
        start_time_ns=begun,
    )
    with safe_set_span_in_context(root):
        mlflow.update_current_trace(
            request_preview=one.opening[-1].text[:SHOWN_TEXT],
            response_preview=str(one.answer)[:SHOWN_TEXT],
        )
        mlflow.log_expectation(
            trace_id=root.trace_id, name=EXPECTATION, value=case.truth, source=SOURCE
        )
        totals = {"reward": one.reward, "advantage": case.advantages.group}
        _add_feedback(root.trace_id, {**one.reward_terms, **totals})
        for place in range(len(one.turns)):
            begun = _log_turn(case, place, root, begun)
    outputs = {
        "answer": one.answer,
        "accuracy": one.accuracy,
        "ending": str(one.ending),
        "reward_terms": dict(one.reward_terms),
    }
    root.end(outputs=outputs, end_time_ns=begun + LEAST_NANOSECONDS)


def _log_turn(case: _Case, place: int, root: LiveSpan, begun: int) -> int:
    """Log a turn that began at a time in nanoseconds; return the time of its end."""
    one, turn = case.trajectory, case.trajectory.turns[place]
    before = one.turns[place - 1].reply if place else one.opening[-1]
    generation, execution = _times(turn)
    end = begun + generation + execution
    span = mlflow.start_span_no_context(
        f"turn {place + 1}",
        span_type=SpanType.LLM,
        parent_span=root,
        inputs={"messages": [{"role": "user", "content": before.text if before else ""}]},
        attributes=_measured(one, place),
        start_time_ns=begun,
    )
    if turn.execution is not None:
        _log_execution(turn, span, begun + generation, end)
        scores = {
            "tool_turn": case.penalty if turn.has_failed and case.penalty else None,
            "turn_advantage": case.advantages.turns[place] if case.advantages.turns else None,
        }
        _add_feedback(root.trace_id, scores, span.span_id)
    message = {"role": "assistant", "content": turn.text}
    span.end(outputs={"choices": [{"message": message}]}, end_time_ns=end)
    return end


def _log_execution(turn: Turn, parent: LiveSpan, begun: int, end: int) -> None:
    execution = turn.execution
    assert execution is not None
    span = mlflow.start_span_no_context(
        "sandbox",
        span_type=SpanType.TOOL,
        parent_span=parent,
        inputs={"code": turn.action.content},
        attributes={"wall_seconds": str(execution.wall_seconds)},
        start_time_ns=begun,
    )
    outputs = {
        "outcome": str(execution.outcome),
        "stdout": execution.stdout,
        "stderr": execution.stderr,
        "error": execution.error,
        "images": [data_uri(image) for image in execution.images],
    }
    span.end(outputs=outputs, status="ERROR" if turn.has_failed else "OK", end_time_ns=end)


def _add_feedback(trace_id: str, scores: Terms, span_id: str | None = None) -> None:
    """Add the known scores to a trace, or to one of its spans."""
    for name, value in scores.items():
        if value is not None:
            mlflow.log_feedback(
                trace_id=trace_id, name=name, value=round(value, 6), source=SOURCE, span_id=span_id
            )


def _times(turn: Turn) -> tuple[int, int]:
    """Return how long the policy wrote a turn and the sandbox ran its code, in nanoseconds."""
    wall = 0.0 if turn.execution is None else turn.execution.wall_seconds
    return max(int((turn.generation_seconds or 0.0) * 1e9), LEAST_NANOSECONDS), int(wall * 1e9)


def _measured(trajectory: Trajectory, place: int) -> dict[str, Any]:
    """Return the time of a turn's generation, and its tokens: input before it, output in it."""
    seconds = trajectory.turns[place].generation_seconds
    found: dict[str, Any] = {} if seconds is None else {"generation_seconds": round(seconds, 6)}
    turn_of = () if trajectory.tokens is None else trajectory.tokens.turn_of
    if own := [n for n, turn in enumerate(turn_of) if turn == place]:
        usage = {"input_tokens": own[0], "output_tokens": len(own), "total_tokens": own[-1] + 1}
        found["mlflow.chat.tokenUsage"] = usage
    return found
