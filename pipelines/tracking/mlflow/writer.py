"""The MLflow side: the effect of each event of the outbox.

Events are idempotent, since a sender may die between MLflow's accepting an event and the record
that it was sent: runs, models and traces have a tag that is looked up first, and the metric of a
step is not sent if an earlier process has sent it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.home import Home
from ...store.connection.errors import StoreError
from ...store.store import Store
from ..outbox import Address, Event
from .artifacts import ArtifactUploader
from .database import make_database
from .models import ModelUploader
from .runs import RunRegistry
from .traces import log_traces

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 900
STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
LONGEST_TAG = 5000
NOTE = "mlflow.note.content"
REFUSALS = frozenset(
    {
        "BAD_REQUEST",
        "FEATURE_DISABLED",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "NOT_IMPLEMENTED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
    }
)


class MlflowWriter:
    """Writes events to one MLflow.

    Args:
        home: Home folder with the files of embedded MLflow.
        store: Store with the trajectories of traces.
        address: MLflow server, experiment and run to write to.
    """

    def __init__(self, home: Home, store: Store, address: Address) -> None:
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the sender reports errors
        self._store = store
        self.address = address
        make_database(address.uri)
        self.client: MlflowClient = mlflow.MlflowClient(address.uri)
        self.runs = RunRegistry(self.client, home, address)
        self._models = ModelUploader(self.client, self.runs)
        self._artifacts = ArtifactUploader(self.client, self.runs, address)

    def send(self, events: Sequence[Event]) -> int:
        """Send the first event, and with it all metrics of its run that follow directly.

        Returns:
            Number of events sent.
        """
        import mlflow

        mlflow.set_tracking_uri(self.address.uri)  # the registry looks up models by it
        first = events[0]
        if first["kind"] == "metrics":
            return self._send_metrics(events)
        handler = getattr(self, f"_send_{first['kind']}", None)
        if handler is not None:
            handler(first)
        return 1

    def _send_metrics(self, events: Sequence[Event]) -> int:
        from mlflow.entities import Metric

        run = self.runs.find(events[0]["run"])
        metrics: list[Metric] = []
        count = 0
        for event in events:
            is_same = event["kind"] == "metrics" and event["run"] == events[0]["run"]
            if not is_same or (metrics and len(metrics) + len(event["values"]) > BATCH):
                break
            metrics += [
                Metric(name, value, event["time"], event["step"])
                for name, value in readable(event["values"]).items()
                if not run.has_figure(name, event["step"], value)
            ]
            count += 1
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run.id, metrics=metrics[start : start + BATCH])
        run.note_figures(metrics)
        return count

    def _send_begin(self, event: Event) -> None:
        run = self.runs.begin(event)
        self.runs.add_parameters(run, readable(event["parameters"]))
        tags = dict(event["tags"])
        self._describe(run.id, tags.pop(NOTE, ""), is_given=run.is_given)
        self._set_tags(run.id, tags)

    def _send_describe(self, event: Event) -> None:
        run = self.runs.find(event["run"])
        self._describe(run.id, event["description"], is_given=run.is_given)

    def _describe(self, run_id: str, text: str, *, is_given: bool) -> None:
        """Set the description; that of a run which the user named and described is not changed."""
        if not text or (is_given and self.runs.has_own_note(run_id)):
            return
        self.client.set_tag(run_id, NOTE, shortened(text))

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        found = [RunTag(name, value[:LONGEST_TAG]) for name, value in readable(tags).items()]
        for start in range(0, len(found), 90):
            self.client.log_batch(run_id, tags=found[start : start + 90])

    def _send_tag(self, event: Event) -> None:
        self._set_tags(self.runs.find(event["run"]).id, {event["name"]: event["value"]})

    def _send_dataset(self, event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=event["name"],
            digest=event["digest"],
            source_type="codedance",
            source=json.dumps({"store": "CODEDANCE_DIR", "run": event["run"]}),
            profile=json.dumps(event["profile"]),
        )
        tags = [InputTag("mlflow.data.context", event.get("use", "training"))]
        run = self.runs.find(event["run"])
        self.client.log_inputs(run.id, datasets=[DatasetInput(dataset, tags)])

    def _send_artifact(self, event: Event) -> None:
        self._artifacts.add(event["run"], Path(event["path"]), event["folder"])

    def _send_model(self, event: Event) -> None:
        self._models.add(event)

    def _send_judged(self, event: Event) -> None:
        self._models.judge(event)

    def _send_traces(self, event: Event) -> None:
        log_traces(self._store, event, run=self.runs.find(event["run"]), uri=self.address.uri)

    def _send_end(self, event: Event) -> None:
        run = self.runs.find(event["run"])
        self.client.set_terminated(run.id, STATUS[event["status"]], event.get("time"))


def is_refusal(error: BaseException) -> bool:
    """Whether MLflow will never accept an event, however often it is sent."""
    from mlflow.exceptions import RestException

    if isinstance(error, (StoreError, ValueError, TypeError, LookupError, AttributeError)):
        return True
    code = getattr(error, "error_code", None)
    is_answer = isinstance(error, RestException) or code == "INVALID_PARAMETER_VALUE"
    return is_answer and code in REFUSALS


def readable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same values under names that MLflow accepts."""
    return {_name(key): value for key, value in values.items()}


def shortened(text: str) -> str:
    """Cut a description to the length that MLflow accepts, at the end of a line."""
    if len(text) <= LONGEST_TAG:
        return text
    ending = "\n\n… the rest is in the run's artifacts, report/report.md"
    return text[: LONGEST_TAG - len(ending)].rpartition("\n")[0] + ending


def _name(key: str) -> str:
    """Return a name that MLflow accepts: no special characters, no path outside the run."""
    clean = "".join(c if c.isalnum() or c in "_-./ :" else "_" for c in key)
    parts = [part for part in clean.split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:250] or "unnamed"
