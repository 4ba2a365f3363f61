"""Registry that maps each of our runs to its MLflow run: found by a tag, or created."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.git_context import GitRunContext
from mlflow.tracking.context.registry import resolve_tags

from ...config.home import Home
from ...store.lineage import PIPELINE, StageRun
from ..lines import LineReader
from ..metrics_file import FILE_NAME as METRICS_NAME
from ..tracker import FIGURES_NAME, NOTE
from .address import EXPERIMENT, RUN_TAG, Address

NOTE_IS_THEIRS = "codedance.note_is_theirs"


class KnownRun:
    """The MLflow run of one of our runs, with what it is known to hold.

    Attributes:
        id: Run id in MLflow.
        experiment: Id of its experiment.
        artifacts: Location of its artifacts.
        status: Its status in MLflow.
        parameters: Names of its parameters, which MLflow never changes.
        tags: Its tags.
        sent: Names of the datasets, traces, artifacts and models that this process sent.
    """

    def __init__(self, client: MlflowClient, found: Run, folder: Path) -> None:
        self.id: str = found.info.run_id
        self.experiment: str = found.info.experiment_id
        self.artifacts: str = found.info.artifact_uri or ""
        self.status: str = found.info.status
        self.parameters = set[str](found.data.params)
        self.tags = dict[str, str](found.data.tags)
        self.sent = set[str]()
        self._client = client
        self._steps = LineReader(folder / METRICS_NAME)
        self._figures = LineReader(folder / FIGURES_NAME)
        self._unsent: list[Metric] = []
        self._recorded: dict[str, dict[int, float]] = {}

    def send_metrics(self) -> None:
        """Send the new metrics in the run's folder, except those that MLflow has."""
        now = time.time_ns() // 10**6
        for line in self._steps.read():
            step = int(line.pop("step"))
            self._unsent += [Metric(n, v, now, step) for n, v in readable(line).items()]
        for line in self._figures.read():
            found = readable(line["values"]).items()
            self._unsent += [Metric(n, v, line["at"], line["step"]) for n, v in found]
        new = {(one.key, one.step): one for one in self._unsent if not self._has(one)}
        self._client.log_batch(self.id, metrics=list(new.values()))
        for (name, step), metric in new.items():
            self._recorded[name][step] = metric.value
        self._unsent.clear()

    def _has(self, metric: Metric) -> bool:
        """Whether a metric's value is recorded already.

        The first record of a repeated training step counts; a result without steps (step 0) may
        change, for example when a run is evaluated again.
        """
        if metric.key not in self._recorded:
            history = self._client.get_metric_history(self.id, metric.key)
            ordered = sorted(history, key=lambda one: one.timestamp)
            self._recorded[metric.key] = {one.step: one.value for one in ordered}
        value = self._recorded[metric.key].get(metric.step)
        return value is not None and (metric.step > 0 or value == metric.value)


class RunRegistry:
    """Finds and creates MLflow runs in the experiment that an address names."""

    def __init__(self, client: MlflowClient, home: Home, address: Address) -> None:
        self._client = client
        self._home = home
        self._address = address
        self._known: dict[str, KnownRun] = {}

    def find(self, run: StageRun) -> KnownRun:
        """Return the MLflow run of a run, created if it is missing."""
        if run.id not in self._known:
            query = f"tags.`{RUN_TAG}` = '{run.id}'"
            found = self._client.search_runs([self._experiment], query, max_results=1)
            theirs = found[0] if found else self._given(run) or self._create(run)
            self._known[run.id] = KnownRun(self._client, theirs, self._home.stages / run.id)
        return self._known[run.id]

    def _given(self, run: StageRun) -> Run | None:
        """Return the MLflow run that the user named for the pipeline run; None without one."""
        if self._address.run_id is None or run.stage != PIPELINE:
            return None
        theirs = self._client.get_run(self._address.run_id)
        if theirs.data.tags.get(RUN_TAG, run.id) != run.id:
            return None  # it belongs to an earlier pipeline run; this one gets a new run
        if theirs.data.tags.get(NOTE) and RUN_TAG not in theirs.data.tags:
            self._client.set_tag(theirs.info.run_id, NOTE_IS_THEIRS, "true")
        self._client.set_tag(theirs.info.run_id, RUN_TAG, run.id)
        return self._client.get_run(theirs.info.run_id)

    def _create(self, run: StageRun) -> Run:
        tags = resolve_tags(
            {RUN_TAG: run.id, "mlflow.source.name": "codedance"},
            ignore=[GitRunContext],  # pyright: ignore[reportArgumentType] - MLflow wants classes
        )
        begun = milliseconds(run.started_at)
        return self._client.create_run(self._experiment, begun, tags, run_name=run.id)

    @cached_property
    def _experiment(self) -> str:
        """Id of the experiment, created if none of that name exists."""
        address = self._address
        if address.experiment_id is not None:
            return address.experiment_id
        if address.run_id is not None and address.experiment is None:
            return self._client.get_run(address.run_id).info.experiment_id
        name = address.experiment or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        if found is None:
            return self._make_experiment(name)
        if found.lifecycle_stage == "deleted":
            raise RuntimeError(f"the experiment {name!r} is deleted: restore it, or name another")
        return found.experiment_id

    def _make_experiment(self, name: str) -> str:
        place = self._home.mlflow_artifacts.as_uri() if self._address.is_embedded else None
        note = "Models that reason by writing code: one run per pipeline, a child run per stage."
        tags = {"mlflow.experimentKind": "custom_model_development", NOTE: note}
        try:
            return self._client.create_experiment(name, artifact_location=place, tags=tags)
        except MlflowException:
            if found := self._client.get_experiment_by_name(name):
                return found.experiment_id  # another process was faster
            raise


def milliseconds(moment: datetime) -> int:
    """Return a time of the store (UTC, without a zone) as MLflow expects it."""
    return int(moment.replace(tzinfo=UTC).timestamp() * 1000)


def readable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same values under names that MLflow accepts.

    Without special characters, and without a path that leads out of the run.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        clean = "".join(c if c.isalnum() or c in "_-./ :" else "_" for c in key)
        parts = [part for part in clean.split("/") if part not in ("", ".", "..")]
        found["/".join(parts)[:250] or "unnamed"] = value
    return found
