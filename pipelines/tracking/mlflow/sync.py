"""Brings MLflow up to date with runs, from the store and the runs' folders.

A run's page in MLflow is a projection: it is made from the run's row, its files and its
trajectories, any number of times with the same result. Runs, models and traces have a tag that is
looked up before they are made, and the metric of a step is sent once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...analysis.model_comparison import FILE_NAME as RESULTS_NAME
from ...config.home import Home
from ...store.connection.errors import StoreError
from ...store.lineage import PIPELINE, StageRun
from ...store.store import Store
from ..alarm_file import read_alarms
from ..lines import LineReader
from ..metrics_file import FILE_NAME as METRICS_NAME
from ..tracker import FIGURES_NAME, RunPage, now, read_page
from .address import Address
from .artifacts import ArtifactUploader
from .database import make_database
from .models import ModelUploader
from .runs import NOTE, NOTE_IS_THEIRS, KnownRun, RunRegistry, milliseconds
from .traces import log_traces

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

BATCH = 900
STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
LONGEST_TAG = 5000
LONGEST_VALUE = 500
"""Maximum length of a parameter's value that the oldest servers accept."""
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
Say = Callable[[str], None]


@dataclass(slots=True)
class _Progress:
    """What this process has sent of a run, so that it sends only what is new."""

    readers: dict[str, LineReader]
    sent: set[str] = field(default_factory=set[str])
    unsent: list[Metric] = field(default_factory=list["Metric"])


class MlflowSync:
    """Writes the pages of runs to one MLflow.

    Args:
        home: Home folder with the runs' folders, and with the files of embedded MLflow.
        store: Store with the runs and their trajectories.
        address: The MLflow, and the place in it.
        say: Called with a message about each thing that MLflow refuses.
    """

    def __init__(self, home: Home, store: Store, address: Address, say: Say) -> None:
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are reported by callers
        self._home = home
        self._store = store
        self._address = address
        self._say = say
        make_database(address.uri)
        self.client: MlflowClient = mlflow.MlflowClient(address.uri)
        self._runs = RunRegistry(self.client, home, store.lineage, address)
        self._models = ModelUploader(self.client)
        self._artifacts = ArtifactUploader(self.client, address)
        self._progress: dict[str, _Progress] = {}
        self.refused = 0

    def sync(self, run_id: str) -> None:
        """Bring the page of a run up to date: of a stage run, or of a pipeline run without stages.

        Raises:
            StoreError: The store has no such run.
            Exception: Whatever MLflow's client raises where the server does not answer.
        """
        import mlflow

        mlflow.set_tracking_uri(self._address.uri)  # the registry looks up models by it
        run = self._store.lineage.find(id=run_id)[0]
        folder = self._home.stages / run_id
        page, known = read_page(folder), self._runs.find(run)
        done = self._progress.setdefault(
            run_id,
            _Progress({name: LineReader(folder / name) for name in (METRICS_NAME, FIGURES_NAME)}),
        )
        if run.status == "running" and known.status != "RUNNING":
            self.client.update_run(known.id, status="RUNNING")
            known.status = "RUNNING"
        self._set_parameters(known, run)
        self._set_tags(known, run, page, folder)
        self._send_metrics(known, done)
        for what, send in self._things(run, page, folder, known):
            if what not in done.sent:
                self._attempt(f"{what} of {run_id}", send)
                done.sent.add(what)
        if run.ended_at is not None and known.status != STATUS[run.status]:
            self.client.set_terminated(known.id, STATUS[run.status], milliseconds(run.ended_at))
            known.status = STATUS[run.status]

    def _things(
        self, run: StageRun, page: RunPage, folder: Path, known: KnownRun
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield what is sent once: a name that changes with the content, and the call."""
        for (name, digest), dataset in page.datasets.items():
            yield f"dataset {name} {digest}", lambda d=dataset: self._log_dataset(run, known, d)
        for name, traces in page.traces.items():
            yield (
                f"traces {name} {traces['trajectories']}",
                lambda t=traces: log_traces(self._store, run, t, known=known),
            )
        for path, place in page.artifacts.items():
            for file, below in _files(Path(path), place):
                yield _stamped(file), lambda f=file, b=below: self._artifacts.add(known, f, b)
        if not run.is_finished or run.stage == PIPELINE:
            return
        if model := run.outputs.get("model"):
            yield f"model {model}", lambda: self._models.add(run, known, Path(str(model)))
        if run.inputs and (results := folder / RESULTS_NAME).is_file():
            yield _stamped(results), lambda: self._models.judge(run, known, results)

    def _attempt(self, what: str, send: Callable[[], object]) -> None:
        """Send a thing; what MLflow will never accept is reported and passed over."""
        try:
            send()
        except Exception as error:
            if not is_refusal(error):
                raise
            self.refused += 1
            self._say(f"MLflow rejected: {what} ({brief(error)})")

    def _set_parameters(self, known: KnownRun, run: StageRun) -> None:
        """Set the parameters that are not set yet; MLflow's parameters never change."""
        from mlflow.entities import Param

        found = readable(flat(run.parameters))
        new = [Param(n, v[:LONGEST_VALUE]) for n, v in found.items() if n not in known.parameters]
        for start in range(0, len(new), 90):
            self.client.log_batch(known.id, params=new[start : start + 90])
        known.parameters |= {one.key for one in new}

    def _set_tags(self, known: KnownRun, run: StageRun, page: RunPage, folder: Path) -> None:
        """Set the tags that differ; a note that came with a given run is kept."""
        from mlflow.entities import RunTag

        tags = {**page.tags, **{f"codedance.stage.{n}": v for n, v in run.stage_runs.items()}}
        for alarm in read_alarms(folder):
            tags[f"codedance.alarm.{alarm.name}"] = f"step {alarm.step}: {alarm.message}"
        tags = readable(tags) | self._runs.own_tags(run)
        if page.description and NOTE_IS_THEIRS not in known.tags:
            tags[NOTE] = shortened(page.description)
        tags = {name: value[:LONGEST_TAG] for name, value in tags.items()}
        new = [RunTag(n, v) for n, v in tags.items() if known.tags.get(n) != v]
        for start in range(0, len(new), 90):
            self.client.log_batch(known.id, tags=new[start : start + 90])
        known.tags |= {one.key: one.value for one in new}

    def _send_metrics(self, known: KnownRun, done: _Progress) -> None:
        from mlflow.entities import Metric

        for line in done.readers[METRICS_NAME].read():
            step = int(line.pop("step"))
            done.unsent += [Metric(n, v, now(), step) for n, v in readable(line).items()]
        for line in done.readers[FIGURES_NAME].read():
            found = readable(line["values"]).items()
            done.unsent += [Metric(n, v, line["at"], line["step"]) for n, v in found]
        while done.unsent:
            batch = done.unsent[:BATCH]
            new = {
                (one.key, one.step): one
                for one in batch
                if not known.has_figure(one.key, one.step, one.value)
            }
            if new:
                self.client.log_batch(known.id, metrics=list(new.values()))
                known.note_figures(new.values())
            del done.unsent[: len(batch)]

    def _log_dataset(self, run: StageRun, known: KnownRun, found: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=found["name"],
            digest=found["digest"],
            source_type="codedance",
            source=json.dumps({"store": "CODEDANCE_DIR", "run": run.id}),
            profile=json.dumps(found["profile"]),
        )
        tags = [InputTag("mlflow.data.context", found["use"])]
        self.client.log_inputs(known.id, datasets=[DatasetInput(dataset, tags)])


def _files(path: Path, place: str) -> Iterator[tuple[Path, str]]:
    """Yield a file, or every file in a folder, with its folder among the artifacts."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() or file == path:
            below = file.parent.relative_to(path).as_posix() if file != path else "."
            yield file, "/".join(part for part in (place, below) if part not in ("", "."))


def _stamped(file: Path) -> str:
    """Return a name that changes with the file's content."""
    if not file.is_file():
        return f"artifact {file}, which is gone"
    found = file.stat()
    return f"artifact {file} {found.st_size} {found.st_mtime_ns}"


def is_refusal(error: BaseException) -> bool:
    """Whether MLflow will never accept a thing, however often it is sent."""
    from mlflow.exceptions import RestException

    if isinstance(error, (StoreError, ValueError, TypeError, LookupError, AttributeError)):
        return True
    code = getattr(error, "error_code", None)
    is_answer = isinstance(error, RestException) or code == "INVALID_PARAMETER_VALUE"
    return is_answer and code in REFUSALS


def brief(error: BaseException) -> str:
    """Return an error as one line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no reason given'}"[:160]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested parameters.

    >>> flat({"sft": {"steps": 3}})
    {'sft.steps': '3'}
    """
    found: dict[str, str] = {}
    for name, value in values.items():
        is_nested = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{name}.") if is_nested else {f"{prefix}{name}": str(value)}
    return found


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
