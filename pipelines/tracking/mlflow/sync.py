"""Brings MLflow up to date with runs, from the store and the runs' folders.

A run's page in MLflow is a projection: it is made from the run's row, its files and its
trajectories, any number of times with the same result. Runs, models and traces have a tag that is
looked up before they are made, and the metric of a step is sent once.

Importing this module imports MLflow, which takes seconds and reads the environment.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag
from mlflow.exceptions import MlflowException

from ...analysis.model_comparison import FILE_NAME as RESULTS_NAME
from ...config.home import Home
from ...store.connection.errors import StoreError
from ...store.lineage import PIPELINE, StageRun
from ...store.store import Store
from ..alarm_file import read_alarms
from ..tracker import NOTE, RunPage, read_page
from .address import RUN_TAG, Address, named_place
from .artifacts import upload
from .database import make_database
from .models import ModelUploader
from .runs import NOTE_IS_THEIRS, KnownRun, RunRegistry, milliseconds, readable
from .traces import log_traces

STATUS = {"running": "RUNNING", "finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
LONGEST_TAG = 5000
LONGEST_VALUE = 500
"""Maximum length of a parameter's value that the oldest servers accept."""
MAY_PASS = (401, 403, 429)
"""Client errors that are not about what was sent: no access, too many requests."""
UNSUPPORTED = ("FEATURE_DISABLED", "NOT_IMPLEMENTED")
Say = Callable[[str], None]


class MlflowSync:
    """Writes the pages of runs to one MLflow.

    Args:
        say: Called with a message about each thing that MLflow rejects.
    """

    def __init__(self, home: Home, store: Store, address: Address, say: Say) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are reported by callers
        make_database(address.uri)
        self._home, self._store, self._address, self._say = home, store, address, say
        self._client = mlflow.MlflowClient(address.uri)
        self._runs = RunRegistry(self._client, home, address)
        self._models = ModelUploader(self._client)
        self.rejected = 0
        """Number of things that MLflow rejected."""

    def sync(self, run_id: str) -> None:
        """Bring the page of a run up to date: of a stage run, or of a pipeline run without stages.

        What MLflow will never accept is reported and passed over.

        Raises:
            StoreError: The store has no such run.
            Exception: Whatever MLflow's client raises where the server does not answer.
        """
        mlflow.set_tracking_uri(self._address.uri)  # the registry looks up models by it
        run = self._store.lineage.get(run_id)
        folder = self._home.stages / run_id
        page, known, status = read_page(folder), self._runs.find(run), STATUS[run.status]
        if run.ended_at is None and known.status != status:
            self._client.update_run(known.id, status)
        self._describe(run, page, folder, known)
        known.send_metrics()
        for what, send in self._things(run, page, folder, known):
            if what in known.sent:
                continue
            try:
                send()
            except Exception as error:
                if not is_refusal(error):
                    raise
                self.rejected += 1
                self._say(f"MLflow rejected: {what} of {run_id} ({brief(error)})")
            known.sent.add(what)
        if run.ended_at is not None and known.status != status:
            self._client.set_terminated(known.id, status, milliseconds(run.ended_at))
        known.status = status

    def _things(
        self, run: StageRun, page: RunPage, folder: Path, known: KnownRun
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield what is sent once: a name that changes with the content, and the call."""
        for name, dataset in page.datasets.items():
            yield f"dataset {name}", partial(self._log_dataset, run, known, dataset)
        for name, chosen in page.groups.items():
            send = partial(log_traces, self._store, run, name, chosen, known=known)
            yield f"traces {name} {chosen['trajectories']}", send
        for path, place in page.artifacts.items():
            for file, below in _files(Path(path), place):
                send = partial(upload, self._client, self._address, known, file, below)
                yield _stamped(file), send
        if not run.is_finished or run.stage == PIPELINE:
            return
        if model := run.outputs.get("model"):
            yield f"model {model}", partial(self._models.add, run, known, Path(str(model)))
        if run.inputs and (results := folder / RESULTS_NAME).is_file():
            yield _stamped(results), partial(self._models.judge, run, known, results)

    def _describe(self, run: StageRun, page: RunPage, folder: Path, known: KnownRun) -> None:
        """Set the parameters that are missing, since none ever changes, and the tags that differ.

        A note that came with a given run is kept.
        """
        tags = page.tags | {f"codedance.stage.{n}": v for n, v in run.stage_runs.items()}
        for alarm in read_alarms(folder):
            tags[f"codedance.alarm.{alarm.name}"] = f"step {alarm.step}: {alarm.message}"
        tags = readable(tags) | {RUN_TAG: run.id, "codedance.stage": run.stage}
        if run.parent is not None and (parents := self._store.lineage.find(id=run.parent)):
            tags["mlflow.parentRunId"] = self._runs.find(parents[0]).id
        note = shortened(tags.pop(NOTE, ""))
        if note and NOTE_IS_THEIRS not in known.tags:
            tags[NOTE] = note
        tags = {name: value[:LONGEST_TAG] for name, value in tags.items()}
        changed = {n: v for n, v in tags.items() if known.tags.get(n) != v}
        parameters = readable(flat(run.parameters))
        missing = {n: v for n, v in parameters.items() if n not in known.parameters}
        self._client.log_batch(
            known.id,
            params=[Param(name, value[:LONGEST_VALUE]) for name, value in missing.items()],
            tags=[RunTag(name, value) for name, value in changed.items()],
        )
        known.parameters |= missing.keys()
        known.tags |= changed

    def _log_dataset(self, run: StageRun, known: KnownRun, found: Mapping[str, Any]) -> None:
        dataset = Dataset(
            name=found["name"],
            digest=found["digest"],
            source_type="codedance",
            source=json.dumps({"store": "CODEDANCE_DIR", "run": run.id}),
            profile=json.dumps(found["profile"]),
        )
        tags = [InputTag("mlflow.data.context", found["use"])]
        self._client.log_inputs(known.id, datasets=[DatasetInput(dataset, tags)])


def sync_runs(home: Home, store: Store, runs: Sequence[StageRun], say: Say) -> int:
    """Bring MLflow up to date with runs, each in the experiment that it was begun with.

    Returns:
        Number of things that MLflow rejected.

    Raises:
        Exception: Whatever MLflow's client raises where the server does not answer.
    """
    syncs: dict[Address, MlflowSync] = {}
    for run in runs:
        place = read_page(home.stages / run.id).place | named_place()
        address = Address(home.mlflow_uri, **place)
        if address not in syncs:
            syncs[address] = MlflowSync(home, store, address, say)
        syncs[address].sync(run.id)
        say(f"{run.id}: up to date in MLflow")
    return sum(one.rejected for one in syncs.values())


def _files(path: Path, place: str) -> Iterator[tuple[Path, str]]:
    """Yield a file, or every file in a folder, with its folder among the artifacts."""
    if not path.is_dir():
        yield path, place
        return
    for file in sorted(path.rglob("*")):
        if file.is_file():
            below = (Path(place) / file.parent.relative_to(path)).as_posix()
            yield file, "" if below == "." else below


def _stamped(file: Path) -> str:
    """Return a name that changes with the file's content."""
    found = file.stat() if file.is_file() else None
    return f"artifact {file}" + (f" {found.st_size} {found.st_mtime_ns}" if found else "")


def is_refusal(error: Exception) -> bool:
    """Whether a thing will never be accepted, however often it is sent; else MLflow is away."""
    if isinstance(error, MlflowException):
        code = error.get_http_status_code()
        is_its_fault = 400 <= code < 500 and code not in MAY_PASS
        return is_its_fault or error.error_code in UNSUPPORTED
    return isinstance(error, (StoreError, LookupError, ValueError, TypeError, AttributeError))


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


def shortened(text: str) -> str:
    """Cut a description to the length that MLflow accepts, at the end of a line."""
    if len(text) <= LONGEST_TAG:
        return text
    ending = "\n\n… the rest is in the run's artifacts, report/report.md"
    return text[: LONGEST_TAG - len(ending)].rpartition("\n")[0] + ending
