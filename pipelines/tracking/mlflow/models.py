"""Checkpoints in MLflow: a model of their run, a version in the registry, and the champion.

Each suite has one registered model. A new version takes the alias ``champion`` only if it is better
than the current champion on the same held-out tasks, by a paired test; the first version takes it
without a test.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...analysis.model_comparison import FILE_NAME, Results, Verdict, compare, read_results
from ..outbox import Event
from .runs import RunRegistry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
LARGEST_MODEL = 2_000_000_000
"""Maximum size in bytes of a checkpoint that is copied to MLflow; of a larger one only the path
is recorded."""
STAGE_RUN = "codedance.stage_run"
EVALUATION = "codedance.evaluation"
POLICY = "codedance.policy"
VERDICT = "codedance.verdict"
NEWEST = {"sft": "cold-start", "grpo": "reinforced"}


class ModelUploader:
    """Logs, registers and ranks checkpoints."""

    def __init__(self, client: MlflowClient, runs: RunRegistry) -> None:
        self._client = client
        self._runs = runs

    def add(self, event: Event) -> None:
        """Log a checkpoint as a model of its run, and register it.

        Raises:
            LookupError: The checkpoint does not exist any more.
        """
        path = Path(event["path"])
        if not path.is_dir():
            raise LookupError(f"{path} is gone")
        run = self._runs.find(event["run"])
        model_id = self._logged(event, run.id, run.experiment, path)
        self._client.set_tag(run.id, "codedance.checkpoint", str(path))
        suite = event.get("suite")
        if suite:
            self._register(event, run.id, model_id, suite)

    def judge(self, event: Event) -> None:
        """Record the results of versions, and make better ones the champion."""
        results = Path(event["results"])
        run = self._runs.find(event["run"])
        self._client.log_artifact(run.id, str(results))
        found = read_results(results)
        name = registered_name(event["suite"])
        for policy, maker in event["makers"].items():
            version = self._version_of(name, maker)
            if version is not None and found.get(policy):
                self._judge_one(version, found[policy], policy, run.id)

    def _logged(self, event: Event, run_id: str, experiment: str, path: Path) -> str:
        """Return the id of the run's model, created and uploaded if it does not exist yet."""
        from mlflow.entities import LoggedModelOutput

        name = event["name"]
        query = f"source_run_id = '{run_id}' AND name = '{name}'"
        found = self._client.search_logged_models([experiment], filter_string=query)
        model = found[0] if found else None
        if model is None:
            tags = {STAGE_RUN: event["run"], "codedance.checkpoint": str(path)}
            model = self._client.create_logged_model(
                experiment, name=name, source_run_id=run_id, model_type="vision-language", tags=tags
            )
        if str(model.status) != "READY":
            if _size(path) <= LARGEST_MODEL:
                self._client.log_model_artifacts(model.model_id, str(path))
            self._client.finalize_logged_model(model.model_id, "READY")
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        return model.model_id

    def _register(self, event: Event, run_id: str, model_id: str, suite: str) -> None:
        name = registered_name(suite)
        version = self._version_of(name, event["run"])
        if version is None:
            self._make_name(name, suite)
            version = self._client.create_model_version(
                name,
                source=f"models:/{model_id}",
                run_id=run_id,
                model_id=model_id,
                tags={STAGE_RUN: event["run"], "codedance.stage": event["name"]},
                description=f"{event['name']} checkpoint of {event['run']}",
            )
        if event["name"] in NEWEST:
            self._client.set_registered_model_alias(name, NEWEST[event["name"]], version.version)

    def _judge_one(self, version: ModelVersion, results: Results, policy: str, run_id: str) -> None:
        """Compare a version with the champion, and record its results."""
        tags = {
            EVALUATION: run_id,
            POLICY: policy,
            "codedance.held_out_accuracy": f"{sum(results.values()) / len(results):.4f}",
            "codedance.held_out_tasks": str(len(results)),
        }
        champion = self._champion(version.name)
        if champion is None:
            verdict = Verdict(True, f"the first champion, judged on {len(results)} tasks")
        elif champion.version == version.version:
            self._note(version, tags)
            return
        else:
            verdict = self._against(champion, results)
        self._note(version, {**tags, VERDICT: verdict.reason})
        share = sum(results.values()) / len(results)
        text = (
            f"{policy}: {share:.1%} of {len(results)} held-out tasks right, greedily. "
            f"As champion: {verdict.reason}."
        )
        self._client.update_model_version(version.name, version.version, text)
        if verdict.is_better:
            self._client.set_registered_model_alias(version.name, CHAMPION, version.version)

    def _against(self, champion: ModelVersion, results: Results) -> Verdict:
        """Compare with the champion's results stored in MLflow."""
        evaluation, policy = champion.tags.get(EVALUATION), champion.tags.get(POLICY)
        if evaluation is None or policy is None:
            return Verdict(False, f"version {champion.version} was never judged on held-out tasks")
        with tempfile.TemporaryDirectory() as place:
            path = Path(self._client.download_artifacts(evaluation, FILE_NAME, place))
            theirs = read_results(path)[policy]
        verdict = compare(theirs, results)
        return Verdict(verdict.is_better, f"against version {champion.version}: {verdict.reason}")

    def _champion(self, name: str) -> ModelVersion | None:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version_by_alias(name, CHAMPION)
        except MlflowException as error:
            if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
                return None
            raise

    def _version_of(self, name: str, maker: str) -> ModelVersion | None:
        query = f"name = '{name}' AND tags.`{STAGE_RUN}` = '{maker}'"
        found = self._client.search_model_versions(query)
        return found[0] if found else None

    def _make_name(self, name: str, suite: str) -> None:
        from mlflow.exceptions import MlflowException

        text = (
            f"Checkpoints trained on {suite}. Alias `{CHAMPION}`: the one that no later version "
            "beat on the same held-out tasks (exact sign test, 5 %); `cold-start` and "
            "`reinforced`: the newest of each stage."
        )
        with contextlib.suppress(MlflowException):  # it exists already
            self._client.create_registered_model(name, description=text)

    def _note(self, version: ModelVersion, tags: Mapping[str, Any]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(version.name, version.version, key, value)


def registered_name(suite: str) -> str:
    """Return the registered model's name for a suite, or for a file of tasks or families.

    >>> registered_name("data/my tasks.jsonl")
    'codedance-my-tasks'
    """
    stem = Path(suite).stem if suite.endswith((".jsonl", ".py")) else suite
    return "codedance-" + "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
