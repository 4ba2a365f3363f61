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
from ...store.lineage import StageRun
from .runs import KnownRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
LARGEST_MODEL = 2_000_000_000
"""Maximum size in bytes of a checkpoint that is copied to MLflow; of a larger one only the path
is recorded."""
STAGE_RUN = "codedance.stage_run"
CHECKPOINT = "codedance.checkpoint"
EVALUATION = "codedance.evaluation"
POLICY = "codedance.policy"
VERDICT = "codedance.verdict"
NEWEST = {"sft": "cold-start", "grpo": "reinforced"}


class ModelUploader:
    """Logs, registers and ranks checkpoints."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def add(self, run: StageRun, known: KnownRun, path: Path) -> None:
        """Log a stage's checkpoint as a model of its MLflow run, and register it for the suite.

        Raises:
            LookupError: The checkpoint does not exist any more.
        """
        if not path.is_dir():
            raise LookupError(f"{path} is gone")
        model_id = self._logged(run, known, path)
        self._client.set_tag(known.id, CHECKPOINT, str(path))
        if suite := run.parameters.get("suite"):
            self._register(run, known.id, model_id, str(suite))

    def judge(self, run: StageRun, known: KnownRun, results: Path) -> None:
        """Record an evaluation's results with the versions, and make better ones the champion.

        Args:
            run: Evaluation, whose inputs made the checkpoint of each policy.
            known: Its MLflow run.
            results: File written by `model_comparison.write_results`.
        """
        self._client.log_artifact(known.id, str(results))
        found = read_results(results)
        name = registered_name(str(run.parameters.get("suite", "")))
        for policy, maker in run.inputs.items():
            version = self._version_of(name, str(maker))
            if version is not None and found.get(policy):
                self._judge_one(version, found[policy], policy, known.id)

    def _logged(self, run: StageRun, known: KnownRun, path: Path) -> str:
        """Return the id of the run's model, created and uploaded if it does not exist yet."""
        from mlflow.entities import LoggedModelOutput

        query = f"source_run_id = '{known.id}' AND name = '{run.stage}'"
        found = self._client.search_logged_models([known.experiment], filter_string=query)
        model = found[0] if found else None
        if model is None:
            model = self._client.create_logged_model(
                known.experiment,
                name=run.stage,
                source_run_id=known.id,
                model_type="vision-language",
                tags={STAGE_RUN: run.id, CHECKPOINT: str(path)},
            )
        if str(model.status) != "READY":
            if _size(path) <= LARGEST_MODEL:
                self._client.log_model_artifacts(model.model_id, str(path))
            self._client.finalize_logged_model(model.model_id, "READY")
            self._client.log_outputs(known.id, [LoggedModelOutput(model.model_id, step=0)])
        return model.model_id

    def _register(self, run: StageRun, run_id: str, model_id: str, suite: str) -> None:
        name = registered_name(suite)
        version = self._version_of(name, run.id)
        if version is None:
            self._make_name(name, suite)
            version = self._client.create_model_version(
                name,
                source=f"models:/{model_id}",
                run_id=run_id,
                model_id=model_id,
                tags={STAGE_RUN: run.id, "codedance.stage": run.stage},
                description=f"{run.stage} checkpoint of {run.id}",
            )
        alias = NEWEST.get(run.stage, run.stage)
        newest = self._holder(name, alias)
        if newest is None or newest.tags.get(STAGE_RUN, "") < run.id:  # ids sort by time
            self._client.set_registered_model_alias(name, alias, version.version)

    def _judge_one(self, version: ModelVersion, results: Results, policy: str, run_id: str) -> None:
        """Compare a version with the champion, and record its results."""
        tags = {
            EVALUATION: run_id,
            POLICY: policy,
            "codedance.held_out_accuracy": f"{sum(results.values()) / len(results):.4f}",
            "codedance.held_out_tasks": str(len(results)),
        }
        if VERDICT in version.tags and tags.items() <= version.tags.items():
            return  # by an earlier sync
        champion = self._holder(version.name, CHAMPION)
        first = f"the first champion, judged on {len(results)} tasks"
        if champion is None:
            verdict = Verdict(True, first)
        elif champion.version == version.version:
            verdict = Verdict(True, version.tags.get(VERDICT, first))
        else:
            verdict = self._against(champion, results)
        if verdict.is_better:
            self._client.set_registered_model_alias(version.name, CHAMPION, version.version)
        share = sum(results.values()) / len(results)
        text = (
            f"{policy}: {share:.1%} of {len(results)} held-out tasks right, greedily. "
            f"As champion: {verdict.reason}."
        )
        self._client.update_model_version(version.name, version.version, text)
        self._note(version, {**tags, VERDICT: verdict.reason})

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

    def _holder(self, name: str, alias: str) -> ModelVersion | None:
        """Return the version that holds an alias; None where none does."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version_by_alias(name, alias)
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
