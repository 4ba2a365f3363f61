"""Sends the spool to MLflow from a thread of its own; what cannot be sent waits on disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .home import Home
from .mlflow_traces import log_traces
from .store import Store
from .tracking import Event, SpoolReader, Tracker, orphans

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "codedance"
RUN_TAG = "codedance.run"
PERIOD_SECONDS = 2.0
RETRY_SECONDS = 30.0
LAST_CHANCE_SECONDS = 60.0
BATCH = 900
STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class Sender:
    """Drains the spool files of dead processes and of this one, until closed.

    Args:
        home: Where the spool and embedded MLflow lie.
        store: Where traces' trajectories are read.
        tracker: This process's writing side.
        say: Told once when MLflow is away.
    """

    def __init__(
        self, home: Home, store: Store, tracker: Tracker, *, say: Callable[[str], None]
    ) -> None:
        self._home = home
        self._store = store
        self._say = say
        self._own = tracker.path
        self._closing = threading.Event()
        self._is_away = False
        self._desk: _MlflowDesk | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow-sender", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what is left, for at most a minute; say so if some of it has to wait."""
        self._closing.set()
        self._thread.join(LAST_CHANCE_SECONDS)
        left = self._unsent()
        if left:
            self._say(
                f"MLflow ({self._home.mlflow_uri}) has not got everything: {left} events wait in "
                f"{self._home.spool} and go with the next command"
            )

    def _work(self) -> None:
        while not self._closing.is_set():
            pause = RETRY_SECONDS if self._is_away else PERIOD_SECONDS
            self._closing.wait(pause)
            self._drain_all()
        self._drain_all()

    def _drain_all(self) -> None:
        try:
            paths = orphans(self._home.spool)
            if self._own is not None and self._own.exists() and self._own not in paths:
                paths.append(self._own)
            for path in paths:
                self._drain(path)
            self._is_away = False
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises, training goes on
            if not self._is_away:
                self._say(f"MLflow cannot be told now ({_brief(error)}); figures wait on disk")
            self._is_away = True

    def _drain(self, path: Path) -> None:
        reader = SpoolReader(path)
        while events := reader.read():
            if self._desk is None:
                self._desk = _MlflowDesk(self._home, self._store)
            position = 0
            while position < len(events):
                count = self._desk.send([event for event, _ in events[position:]])
                position += count
                reader.mark(events[position - 1][1])
        is_own_and_open = path == self._own and not self._closing.is_set()
        if reader.is_done and not is_own_and_open:
            reader.remove()

    def _unsent(self) -> int:
        return sum(len(SpoolReader(path).read()) for path in self._home.spool.glob("*.jsonl"))


class _MlflowDesk:
    """The MLflow side: one experiment, and which MLflow run each of our runs is."""

    def __init__(self, home: Home, store: Store) -> None:
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # we say it in a line
        self._store = store
        mlflow.set_tracking_uri(home.mlflow_uri)
        self.client: MlflowClient = mlflow.MlflowClient(home.mlflow_uri)
        self.experiment = self._find_experiment(home)
        self._runs: dict[str, str] = {}

    def send(self, events: Sequence[Event]) -> int:
        """Send the first event, and with it all metrics of its run that follow directly.

        Returns:
            How many events were sent.
        """
        first = events[0]
        if first["kind"] == "metrics":
            return self._send_metrics(events)
        handler = getattr(self, f"_send_{first['kind']}", None)
        if handler is not None:
            handler(first)
        return 1

    def _send_metrics(self, events: Sequence[Event]) -> int:
        from mlflow.entities import Metric

        metrics: list[Metric] = []
        count = 0
        for event in events:
            is_same = event["kind"] == "metrics" and event["run"] == events[0]["run"]
            if not is_same or len(metrics) + len(event["values"]) > BATCH:
                break
            metrics += [
                Metric(_name(key), value, event["time"], event["step"])
                for key, value in event["values"].items()
            ]
            count += 1
        self.client.log_batch(self._run(events[0]["run"]), metrics=metrics)
        return max(1, count)

    def _send_begin(self, event: Event) -> None:
        known = self._find_run(event["run"])
        if known is not None:
            self.client.update_run(known, status="RUNNING")
            for name, value in event["tags"].items():
                self.client.set_tag(known, name, value)
            return
        tags = {**event["tags"], RUN_TAG: event["run"], "codedance.stage": event["stage"]}
        if event["parent"]:
            tags["mlflow.parentRunId"] = self._run(event["parent"])
        run = self.client.create_run(self.experiment, run_name=event["run"], tags=tags)
        self._runs[event["run"]] = run.info.run_id
        self._send_parameters(run.info.run_id, event["parameters"])

    def _send_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        items = [Param(_name(key), value[:500]) for key, value in parameters.items()]
        for start in range(0, len(items), 90):
            self.client.log_batch(run_id, params=items[start : start + 90])

    def _send_dataset(self, event: Event) -> None:
        import json

        from mlflow.entities import Dataset, DatasetInput

        dataset = Dataset(
            name=event["name"],
            digest=event["digest"],
            source_type="local",
            source=json.dumps({"uri": str(self._store.images.root.parent)}),
            profile=json.dumps(event["profile"]),
        )
        self.client.log_inputs(self._run(event["run"]), datasets=[DatasetInput(dataset)])

    def _send_tag(self, event: Event) -> None:
        self.client.set_tag(self._run(event["run"]), _name(event["name"]), event["value"][:5000])

    def _send_artifact(self, event: Event) -> None:
        path = Path(event["path"])
        folder = event["folder"] or None
        if path.is_dir():
            self.client.log_artifacts(self._run(event["run"]), str(path), folder)
        elif path.is_file():
            self.client.log_artifact(self._run(event["run"]), str(path), folder)

    def _send_model(self, event: Event) -> None:
        """Log a checkpoint as a model of its run, its files with it."""
        path = Path(event["path"])
        if not path.is_dir():
            return
        run_id = self._run(event["run"])
        model = self.client.create_logged_model(
            self.experiment, name=event["name"], source_run_id=run_id, model_type="vision-language"
        )
        self.client.log_model_artifacts(model.model_id, str(path))
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.set_tag(run_id, "codedance.checkpoint", str(path))

    def _send_traces(self, event: Event) -> None:
        log_traces(
            self._store,
            event["trajectories"],
            run_id=self._run(event["run"]),
            experiment=self.experiment,
            name=event["name"],
        )

    def _send_end(self, event: Event) -> None:
        self.client.set_terminated(self._run(event["run"]), STATUS[event["status"]])

    def _run(self, ours: str) -> str:
        found = self._find_run(ours)
        if found is not None:
            return found
        self._send_begin(
            {"run": ours, "parent": None, "stage": "pipeline", "tags": {}, "parameters": {}}
        )
        return self._runs[ours]

    def _find_run(self, ours: str) -> str | None:
        if ours not in self._runs:
            found = self.client.search_runs(
                [self.experiment], filter_string=f"tags.`{RUN_TAG}` = '{ours}'", max_results=1
            )
            if found:
                self._runs[ours] = found[0].info.run_id
        return self._runs.get(ours)

    def _find_experiment(self, home: Home) -> str:
        import os

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        is_local = home.mlflow_uri.startswith("sqlite:")
        place = home.mlflow_artifacts.as_uri() if is_local else None
        return self.client.create_experiment(name, artifact_location=place)


def _name(key: str) -> str:
    """Make a metric's name one that MLflow takes."""
    return "".join(c if c.isalnum() or c in "_-./ :" else "_" for c in key)


def _brief(error: Any) -> str:  # noqa: ANN401 - any exception
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]
