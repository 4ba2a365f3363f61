"""Stored trajectories as MLflow traces: a span per turn, with code, output, images and rewards.

A trace has the tag ``codedance.trajectory``, which identifies one that was sent before. Spans are
consecutive: a turn lasts as long as the policy's generation and the sandbox's execution. Where the
generation was not measured (an older store), it counts as a millisecond.

The right answer is attached to the trace as an expectation and as a tag. It is read from the store
for MLflow only; no message of the trajectory contains it.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from ....envs.types import Message, Trajectory, Turn
from ...store.connection.errors import StoreError
from ...store.lineage import StageRun
from ...store.store import Store
from ...viewer.advantages import Advantages, sibling_advantages, turn_penalty
from .runs import KnownRun

if TYPE_CHECKING:
    from mlflow.entities import AssessmentSource, LiveSpan

KEY_TAG = "codedance.trajectory"
GROUP_TAG = "codedance.group"
EXPECTATION = "expected_response"
"""Name under which MLflow's judges look for the right answer."""
SHOWN_TEXT = 200
LEAST_NANOSECONDS = 1_000_000
MOST_TRACES = 500
"""Traces per page of a search, the maximum that MLflow's servers return."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A trajectory and its scores.

    Attributes:
        key: Identifier that stays the same however often the trajectory is made or sent.
        group: Phase or step that it belongs to.
        number: Its id in the store.
        trajectory: The trajectory itself.
        terms: Reward terms.
        advantages: Its advantages, where it was trained on.
        penalty: Immediate reward of a failed turn.
        truth: The right answer of its task.
    """

    key: str
    group: str
    number: int
    trajectory: Trajectory
    terms: Mapping[str, float | None]
    advantages: Advantages
    penalty: float
    truth: str


def log_traces(store: Store, run: StageRun, chosen: Mapping[str, Any], *, known: KnownRun) -> None:
    """Log chosen trajectories as traces of an MLflow run, except those logged already.

    Args:
        store: Store with the trajectories.
        run: Stage run that recorded them.
        chosen: Their ``trajectories`` (ids), ``name`` and ``terms``, as `Tracker.traces` records.
        known: The MLflow run, of the MLflow at the tracking URI that is set.

    Raises:
        ConnectionError: MLflow did not accept all traces.
    """
    import mlflow

    cases = _cases(store, run, chosen)
    missing = _missing(cases, known)
    for case in missing:
        _log_trace(case, known)
    mlflow.flush_trace_async_logging()
    if missing and (left := _missing(missing, known)):
        raise ConnectionError(f"{len(left)} of {len(missing)} traces did not arrive")


def _cases(store: Store, run: StageRun, chosen: Mapping[str, Any]) -> list[_Case]:
    ids, found = _kept(store, run, chosen["trajectories"])
    name, terms = chosen["name"], chosen["terms"]
    truths = store.answers(ids)
    return [
        _Case(
            key=f"{name}/{place}/{trajectory.task_id}",
            group=name,
            number=number,
            trajectory=trajectory,
            terms=terms.get(str(number)) or trajectory.reward_terms,
            advantages=advantages,
            penalty=turn_penalty(run),
            truth=truths[number],
        )
        for place, (number, trajectory, advantages) in enumerate(
            zip(ids, found, sibling_advantages(run, found), strict=True)
        )
    ]


def _kept(store: Store, run: StageRun, ids: list[int]) -> tuple[list[int], list[Trajectory]]:
    """Read the trajectories, without those that a resumed run has replaced since."""
    try:
        return ids, store.trajectories(ids)
    except StoreError:
        present = {episode.id for episode in store.episodes(run.id)}
        ids = [number for number in ids if number in present]
        return ids, store.trajectories(ids)


def _missing(cases: Sequence[_Case], run: KnownRun) -> list[_Case]:
    """Return the cases whose traces the run does not have.

    All traces of the run are paged through, newest first, until none is missing: a filter by the
    group would have to quote its name, and MLflow's filters cannot quote every name.
    """
    import mlflow

    client = mlflow.MlflowClient()
    missing = {case.key: case for case in cases}
    token: str | None = None
    while missing:
        traces = client.search_traces(
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
    return list(missing.values())


def _log_trace(case: _Case, run: KnownRun) -> None:
    import mlflow
    from mlflow.entities import SpanType
    from mlflow.tracing.provider import safe_set_span_in_context

    one = case.trajectory
    length = sum(_nanoseconds(turn) for turn in one.turns) + LEAST_NANOSECONDS
    begun = time.time_ns() - length
    session = f"{case.group} {one.task_id}"
    root = mlflow.start_span_no_context(
        one.task_id,
        span_type=SpanType.AGENT,
        inputs={"messages": [_chat(message) for message in one.opening]},
        tags=_tags(case),
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
            trace_id=root.trace_id, name=EXPECTATION, value=case.truth, source=_source()
        )
        _add_feedback(case, root.trace_id)
        for place in range(len(one.turns)):
            begun = _log_turn(case, place, root, begun)
    outputs = {
        "answer": one.answer,
        "accuracy": one.accuracy,
        "ending": str(one.ending),
        "reward_terms": dict(case.terms),
    }
    root.end(outputs=outputs, end_time_ns=begun + LEAST_NANOSECONDS)


def _tags(case: _Case) -> dict[str, str]:
    one = case.trajectory
    return {
        KEY_TAG: case.key,
        GROUP_TAG: case.group,
        "task": one.task_id,
        "policy": one.policy_id,
        "ending": str(one.ending),
        "accuracy": str(one.accuracy),
        "tool_calls": str(len(one.tool_turns)),
        "trajectory": str(case.number),
        "right_answer": case.truth[:SHOWN_TEXT],
    }


def _add_feedback(case: _Case, trace_id: str) -> None:
    """Add the reward terms, their sum, and the advantage among the siblings."""
    values = dict(case.terms)
    if values and None not in values.values():
        values["reward"] = sum(value for value in values.values() if value is not None)
    values["advantage"] = case.advantages.group
    for name, value in values.items():
        if value is not None:
            _feedback(trace_id, name, value)


def _feedback(trace_id: str, name: str, value: float, span_id: str | None = None) -> None:
    import mlflow

    mlflow.log_feedback(
        trace_id=trace_id, name=name, value=round(value, 6), source=_source(), span_id=span_id
    )


def _source() -> AssessmentSource:
    from mlflow.entities import AssessmentSource

    return AssessmentSource(source_type="CODE", source_id="codedance")


def _log_turn(case: _Case, place: int, root: LiveSpan, begun: int) -> int:
    """Log a turn that began at a time in nanoseconds; return the time of its end."""
    import mlflow
    from mlflow.entities import SpanType

    one = case.trajectory
    turn = one.turns[place]
    span = mlflow.start_span_no_context(
        f"turn {place + 1}",
        span_type=SpanType.LLM,
        parent_span=root,
        inputs={"messages": [{"role": "user", "content": _text_before(one, place)}]},
        attributes={**_usage(one, place), **_times(turn)},
        start_time_ns=begun,
    )
    end = begun + _nanoseconds(turn)
    if turn.execution is not None:
        _log_execution(turn, span, begun + _generation_nanoseconds(turn), end)
    if turn.has_failed and case.penalty:
        _feedback(root.trace_id, "tool_turn", case.penalty, span.span_id)
    if case.advantages.turns and turn.is_tool_turn:
        _feedback(root.trace_id, "turn_advantage", case.advantages.turns[place], span.span_id)
    message = {"role": "assistant", "content": turn.text}
    span.end(outputs={"choices": [{"message": message}]}, end_time_ns=end)
    return end


def _log_execution(turn: Turn, parent: LiveSpan, begun: int, end: int) -> None:
    import mlflow
    from mlflow.entities import SpanType

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
        "images": [_attachment(image) for image in execution.images],
    }
    status = "ERROR" if turn.has_failed else "OK"
    span.end(outputs=outputs, status=status, end_time_ns=end)


def _text_before(trajectory: Trajectory, place: int) -> str:
    """Return the text that the policy read before a turn, without images."""
    if place == 0:
        return trajectory.opening[-1].text
    reply = trajectory.turns[place - 1].reply
    return "" if reply is None else reply.text


def _usage(trajectory: Trajectory, place: int) -> dict[str, Any]:
    """Return the token usage of a turn as MLflow counts it: input before it, output in it."""
    if trajectory.tokens is None:
        return {}
    own = [n for n, turn in enumerate(trajectory.tokens.turn_of) if turn == place]
    if not own:
        return {}
    usage = {"input_tokens": own[0], "output_tokens": len(own), "total_tokens": own[-1] + 1}
    return {"mlflow.chat.tokenUsage": usage}


def _times(turn: Turn) -> dict[str, Any]:
    if turn.generation_seconds is None:
        return {}
    return {"generation_seconds": round(turn.generation_seconds, 6)}


def _nanoseconds(turn: Turn) -> int:
    """Return the length of a turn's span: generation and execution."""
    seconds = 0.0 if turn.execution is None else turn.execution.wall_seconds
    return _generation_nanoseconds(turn) + int(seconds * 1e9)


def _generation_nanoseconds(turn: Turn) -> int:
    return max(int((turn.generation_seconds or 0.0) * 1e9), LEAST_NANOSECONDS)


def _chat(message: Message) -> dict[str, Any]:
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _data_url(part)}}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}


def _data_url(image: Image.Image) -> str:
    """Return an image as MLflow's chat view expects it; MLflow moves it to an attachment."""
    return f"data:image/png;base64,{base64.b64encode(_png(image)).decode()}"


def _attachment(image: Image.Image) -> Any:  # noqa: ANN401 - untyped library class
    from mlflow.tracing.attachments import Attachment

    return Attachment(content_type="image/png", content_bytes=_png(image))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
