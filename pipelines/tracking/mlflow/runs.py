"""Registry that maps each of our runs to its MLflow run: found by a tag, or created."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...config.home import Home
from ...store.lineage import PIPELINE
from ..outbox import Address, Event

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

EXPERIMENT = "codedance"
RUN_TAG = "codedance.run"
NOTE_IS_THEIRS = "codedance.note_is_theirs"
LONGEST_VALUE = 500
"""Maximum length of a parameter's value that the oldest servers accept."""


@dataclass(slots=True)
class KnownRun:
    """The MLflow run of one of our runs.

    Attributes:
        id: Run id in MLflow.
        experiment: Id of its experiment.
        artifacts: Location of its artifacts.
        is_given: Whether the user named it (``MLFLOW_RUN_ID``): its name and note are not changed.
        client: Client that reads what earlier processes sent; None for a run of this process.
    """

    id: str
    experiment: str
    artifacts: str
    is_given: bool = False
    client: MlflowClient | None = None
    _sent: dict[str, dict[int, float]] = field(default_factory=dict[str, "dict[int, float]"])

    def has_figure(self, name: str, step: int, value: float) -> bool:
        """Whether the metric's value is recorded already.

        The first record of a repeated training step counts; a result without steps (step 0) may
        change, for example when a run is evaluated again.
        """
        if name not in self._sent:
            self._sent[name] = {} if self.client is None else self._history(name)
        known = self._sent[name].get(step)
        return known is not None and (step > 0 or known == value)

    def note_figures(self, sent: Iterable[Metric]) -> None:
        """Record the metrics that were sent."""
        for metric in sent:
            self._sent.setdefault(metric.key, {})[metric.step] = metric.value

    def _history(self, name: str) -> dict[int, float]:
        assert self.client is not None
        found = self.client.get_metric_history(self.id, name)
        return {m.step: m.value for m in sorted(found, key=lambda m: m.timestamp)}


class RunRegistry:
    """Finds and creates MLflow runs in one experiment."""

    def __init__(self, client: MlflowClient, home: Home, address: Address) -> None:
        self._client = client
        self._home = home
        self._address = address
        self._known: dict[str, KnownRun] = {}
        self._experiment: str | None = None
        self._noted: set[str] = set()

    @property
    def experiment(self) -> str:
        """Id of the experiment, created if none of that name exists."""
        if self._experiment is None:
            self._experiment = self._find_experiment()
        return self._experiment

    def find(self, ours: str) -> KnownRun:
        """Return the MLflow run of one of our runs; create an empty one if it was never begun."""
        found = self._known.get(ours) or self._search(ours)
        if found is not None:
            return found
        bare: Event = {"run": ours, "parent": None, "stage": "", "tags": {}, "parameters": {}}
        return self._create(bare)

    def begin(self, event: Event) -> KnownRun:
        """Return the run of an event that begins or resumes it, with the status running."""
        ours = event["run"]
        found = self._known.get(ours) or self._search(ours) or self._given(event)
        if found is None:
            return self._create(event)
        self._client.update_run(found.id, status="RUNNING")
        for name, value in self._tags(event).items():
            self._client.set_tag(found.id, name, value)
        return found

    def add_parameters(self, run: KnownRun, parameters: Mapping[str, str]) -> None:
        """Set the parameters that are not set yet; MLflow's parameters are immutable."""
        from mlflow.entities import Param

        existing = self._client.get_run(run.id).data.params
        new = [
            Param(name, value[:LONGEST_VALUE])
            for name, value in parameters.items()
            if name not in existing
        ]
        for start in range(0, len(new), 90):
            self._client.log_batch(run.id, params=new[start : start + 90])

    def has_own_note(self, run_id: str) -> bool:
        """Whether a given run came with a description by its user."""
        return run_id in self._noted

    def _search(self, ours: str) -> KnownRun | None:
        found = self._client.search_runs(
            [self.experiment], filter_string=f"tags.`{RUN_TAG}` = '{ours}'", max_results=1
        )
        if not found:
            return None
        return self._keep(ours, found[0], is_given=found[0].info.run_id == self._address.run_id)

    def _given(self, event: Event) -> KnownRun | None:
        """Return the MLflow run that the user named for the pipeline run; None without one."""
        if self._address.run_id is None or event["stage"] != PIPELINE:
            return None
        run = self._client.get_run(self._address.run_id)
        if run.data.tags.get(RUN_TAG, event["run"]) != event["run"]:
            return None  # it belongs to an earlier pipeline run; this one gets a new run
        if run.data.tags.get("mlflow.note.content") and RUN_TAG not in run.data.tags:
            self._client.set_tag(run.info.run_id, NOTE_IS_THEIRS, "true")
            self._noted.add(run.info.run_id)
        return self._keep(event["run"], run, is_given=True)

    def _create(self, event: Event) -> KnownRun:
        run = self._client.create_run(
            self.experiment,
            start_time=event.get("time"),
            run_name=event["run"],
            tags=self._tags(event) | _source(),
        )
        known = KnownRun(run.info.run_id, run.info.experiment_id, run.info.artifact_uri or "")
        self._known[event["run"]] = known
        return known

    def _keep(self, ours: str, run: Run, *, is_given: bool) -> KnownRun:
        info = run.info
        known = KnownRun(
            info.run_id, info.experiment_id, info.artifact_uri or "", is_given, self._client
        )
        if NOTE_IS_THEIRS in run.data.tags:
            self._noted.add(info.run_id)
        self._known[ours] = known
        return known

    def _tags(self, event: Event) -> dict[str, Any]:
        tags = {RUN_TAG: event["run"], "codedance.stage": event["stage"]}
        if event["parent"]:
            tags["mlflow.parentRunId"] = self.find(event["parent"]).id
        return tags

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

        place = self._home.mlflow_artifacts.as_uri() if is_embedded(self._address) else None
        tags = {
            "mlflow.experimentKind": "custom_model_development",
            "mlflow.note.content": "Models that reason by writing code: one run per pipeline, "
            "with a child run per stage.",
        }
        try:
            return self._client.create_experiment(name, artifact_location=place, tags=tags)
        except MlflowException:
            found = self._client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
            return found.experiment_id


def is_embedded(address: Address) -> bool:
    """Whether MLflow is a local file instead of a server."""
    return address.uri.startswith("sqlite:")


def _source() -> dict[str, str]:
    """Return the tags that name the run's source in MLflow's list of runs."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    return {
        "mlflow.source.name": "codedance",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user,
    }
