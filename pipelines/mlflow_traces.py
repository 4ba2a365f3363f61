"""Stored trajectories as MLflow traces: a span a turn, with the pictures in them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from ..envs.types import Message, Trajectory, Turn
from .store import Store


def log_traces(
    store: Store, ids: Sequence[int], *, run_id: str, experiment: str, name: str
) -> None:
    """Log trajectories as traces of an MLflow run."""
    import mlflow

    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_run(run_id=run_id, log_system_metrics=False) as run:
        status = run.info.status
        for number, trajectory in zip(ids, store.trajectories(ids), strict=True):
            _log_trace(trajectory, number, name)
        mlflow.flush_trace_async_logging()
    if status != "RUNNING":
        mlflow.MlflowClient().set_terminated(run_id, status)


def _log_trace(trajectory: Trajectory, number: int, name: str) -> None:
    import mlflow
    from mlflow.entities import SpanType

    with mlflow.start_span(name=trajectory.task_id, span_type=SpanType.AGENT) as root:
        mlflow.update_current_trace(
            tags={
                "phase": name,
                "task": trajectory.task_id,
                "policy": trajectory.policy_id,
                "ending": str(trajectory.ending),
                "trajectory": str(number),
                **{f"reward/{k}": f"{v}" for k, v in trajectory.reward_terms.items()},
            },
            request_preview=trajectory.opening[-1].text[:200],
            response_preview=str(trajectory.answer)[:200],
        )
        root.set_inputs({"messages": [_chat(m) for m in trajectory.opening]})
        for index, turn in enumerate(trajectory.turns, 1):
            _log_turn(turn, index)
        root.set_outputs(
            {
                "answer": trajectory.answer,
                "accuracy": trajectory.accuracy,
                "ending": str(trajectory.ending),
                "reward_terms": dict(trajectory.reward_terms),
            }
        )


def _log_turn(turn: Turn, index: int) -> None:
    import mlflow
    from mlflow.entities import SpanType

    with mlflow.start_span(name=f"turn {index}", span_type=SpanType.LLM) as span:
        span.set_inputs({"turn": index})
        span.set_outputs({"choices": [{"message": {"role": "assistant", "content": turn.text}}]})
        execution = turn.execution
        if execution is None:
            return
        with mlflow.start_span(name="sandbox", span_type=SpanType.TOOL) as tool:
            tool.set_inputs({"code": turn.action.content})
            tool.set_outputs(
                {
                    "outcome": str(execution.outcome),
                    "stdout": execution.stdout,
                    "stderr": execution.stderr,
                    "error": execution.error,
                    "images": [_attachment(image) for image in execution.images],
                }
            )
            tool.set_attribute("wall_seconds", execution.wall_seconds)
            if turn.has_failed:
                tool.set_status("ERROR")


def _chat(message: Message) -> dict[str, Any]:
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _data_url(part)}}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}


def _data_url(image: Image.Image) -> str:
    """Give a picture as MLflow's chat view wants it; it is moved to an attachment of its own."""
    return f"data:image/png;base64,{base64.b64encode(_png(image)).decode()}"


def _attachment(image: Image.Image) -> Any:  # noqa: ANN401 - untyped library class
    from mlflow.tracing.attachments import Attachment

    return Attachment(content_type="image/png", content_bytes=_png(image))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
