"""Registry that maps each of our runs to its MLflow run: found by a tag, or created."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ...config.home import Home
from ...store.lineage import PIPELINE, Lineage, StageRun
from .address import Address

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

EXPERIMENT = "codedance"
RUN_TAG = "codedance.run"
NOTE = "mlflow.note.content"
NOTE_IS_THEIRS = "codedance.note_is_theirs"


@dataclass(slots=True)
class KnownRun:
    """The MLflow run of one of our runs, with what it is known to hold.

    Attributes:
        id: Run id in MLflow.
        experiment: Id of its experiment.
        artifacts: Location of its artifacts.
        status: Its status in MLflow.
        parameters: Names of its parameters, which MLflow never changes.
        tags: Its tags.
        client: Client that reads its metrics.
    """

    id: str
    experiment: str
    artifacts: str
    status: str
    parameters: set[str]
    tags: dict[str, str]
    client: MlflowClient
    _figures: dict[str, dict[int, float]] = field(default_factory=dict[str, "dict[int, float]"])

    def has_figure(self, name: str, step: int, value: float) -> bool:
        """Whether the metric's value is recorded already.

        The first record of a repeated training step counts; a result without steps (step 0) may
        change, for example when a run is evaluated again.
        """
        if name not in self._figures:
            found = sorted(self.client.get_metric_history(self.id, name), key=lambda m: m.timestamp)
            self._figures[name] = {m.step: m.value for m in found}
        known = self._figures[name].get(step)
        return known is not None and (step > 0 or known == value)

    def note_figures(self, sent: Iterable[Metric]) -> None:
        """Note the metrics that were sent."""
        for metric in sent:
            self._figures.setdefault(metric.key, {})[metric.step] = metric.value


class RunRegistry:
    """Finds and creates MLflow runs in one experiment.

    Args:
        client: Client of the MLflow.
        home: Home folder with the files of embedded MLflow.
        lineage: Lineage with the parents of runs.
        address: The MLflow, and the place in it.
    """

    def __init__(
        self, client: MlflowClient, home: Home, lineage: Lineage, address: Address
    ) -> None:
        self._client = client
        self._home = home
        self._lineage = lineage
        self._address = address
        self._known: dict[str, KnownRun] = {}
        self._experiment: str | None = None

    @property
    def experiment(self) -> str:
        """Id of the experiment, created if none of that name exists."""
        if self._experiment is None:
            self._experiment = self._find_experiment()
        return self._experiment

    def find(self, run: StageRun) -> KnownRun:
        """Return the MLflow run of a run, below that of its pipeline run; created if missing."""
        if run.id not in self._known:
            query = f"tags.`{RUN_TAG}` = '{run.id}'"
            found = self._client.search_runs([self.experiment], query, max_results=1)
            theirs = found[0] if found else self._given(run) or self._create(run)
            self._known[run.id] = KnownRun(
                theirs.info.run_id,
                theirs.info.experiment_id,
                theirs.info.artifact_uri or "",
                theirs.info.status,
                set(theirs.data.params),
                dict(theirs.data.tags),
                self._client,
            )
        return self._known[run.id]

    def own_tags(self, run: StageRun) -> dict[str, str]:
        """Return the tags by which a run is found, and stands below its pipeline run."""
        tags = {RUN_TAG: run.id, "codedance.stage": run.stage}
        if run.parent is not None and (parents := self._lineage.find(id=run.parent)):
            tags["mlflow.parentRunId"] = self.find(parents[0]).id
        return tags

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
        return self._client.create_run(
            self.experiment,
            start_time=milliseconds(run.started_at),
            run_name=run.id,
            tags=self.own_tags(run) | _source(),
        )

    def _find_experiment(self) -> str:
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
        from mlflow.exceptions import MlflowException

        place = self._home.mlflow_artifacts.as_uri() if self._address.is_embedded else None
        tags = {
            "mlflow.experimentKind": "custom_model_development",
            NOTE: "Models that reason by writing code: one run per pipeline, with a child run per "
            "stage.",
        }
        try:
            return self._client.create_experiment(name, artifact_location=place, tags=tags)
        except MlflowException:
            found = self._client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
            return found.experiment_id


def milliseconds(moment: datetime) -> int:
    """Return a time of the store (UTC, without a zone) as MLflow expects it."""
    return int(moment.replace(tzinfo=UTC).timestamp() * 1000)


def _source() -> dict[str, str]:
    """Return the tags that name the run's source in MLflow's list of runs."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    return {"mlflow.source.name": "codedance", "mlflow.source.type": "LOCAL", "mlflow.user": user}
