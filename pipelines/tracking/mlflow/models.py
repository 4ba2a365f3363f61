"""Checkpoints in MLflow: a model of their run, a version in the registry, and the champion.

Each suite has one registered model. A new version takes the alias ``champion`` only if it is better
than the current champion on the same held-out tasks, by a paired test; the first version takes it
without a test.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ...analysis.model_comparison import FILE_NAME, Results, Verdict, compare, read_results
from ...store.lineage import StageRun
from .runs import KnownRun

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
        query = f"source_run_id = '{known.id}' AND name = '{run.stage}'"
        found = self._client.search_logged_models([known.experiment], filter_string=query)
        model = next(iter(found), None) or self._client.create_logged_model(
            known.experiment,
            name=run.stage,
            source_run_id=known.id,
            model_type="vision-language",
            tags={STAGE_RUN: run.id, CHECKPOINT: str(path)},
        )
        if str(model.status) != "READY":
            if sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) <= LARGEST_MODEL:
                self._client.log_model_artifacts(model.model_id, str(path))
            self._client.finalize_logged_model(model.model_id, "READY")
            self._client.log_outputs(known.id, [LoggedModelOutput(model.model_id, step=0)])
        self._client.set_tag(known.id, CHECKPOINT, str(path))
        if suite := run.parameters.get("suite"):
            self._register(run, known.id, model.model_id, str(suite))

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

    def _register(self, run: StageRun, run_id: str, model_id: str, suite: str) -> None:
        """Register a model as a version, and as the newest of its stage."""
        name = registered_name(suite)
        text = (
            f"Checkpoints trained on {suite}. Alias `{CHAMPION}`: the one that no later version "
            "beat on the same held-out tasks (exact sign test, 5 %); `cold-start` and "
            "`reinforced`: the newest of each stage."
        )
        with contextlib.suppress(MlflowException):  # it exists already
            self._client.create_registered_model(name, description=text)
        version = self._version_of(name, run.id) or self._client.create_model_version(
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
        share = sum(results.values()) / len(results)
        tags = {
            EVALUATION: run_id,
            POLICY: policy,
            "codedance.held_out_accuracy": f"{share:.4f}",
            "codedance.held_out_tasks": str(len(results)),
        }
        if VERDICT in version.tags and tags.items() <= version.tags.items():
            return  # by an earlier sync
        champion = self._holder(version.name, CHAMPION)
        if champion is None or champion.version == version.version:
            first = f"the first champion, judged on {len(results)} tasks"
            verdict = Verdict(True, champion.tags.get(VERDICT, first) if champion else first)
        else:
            verdict = self._against(champion, results)
        if verdict.is_better:
            self._client.set_registered_model_alias(version.name, CHAMPION, version.version)
        text = (
            f"{policy}: {share:.1%} of {len(results)} held-out tasks right, greedily. "
            f"As champion: {verdict.reason}."
        )
        self._client.update_model_version(version.name, version.version, text)
        for key, value in {**tags, VERDICT: verdict.reason}.items():
            self._client.set_model_version_tag(version.name, version.version, key, value)

    def _against(self, champion: ModelVersion, results: Results) -> Verdict:
        """Compare with the champion's results stored in MLflow."""
        evaluation, policy = champion.tags.get(EVALUATION), champion.tags.get(POLICY)
        if evaluation is None or policy is None:
            return Verdict(False, f"version {champion.version} was never judged on held-out tasks")
        with tempfile.TemporaryDirectory() as place:
            path = Path(self._client.download_artifacts(evaluation, FILE_NAME, place))
            verdict = compare(read_results(path)[policy], results)
        return Verdict(verdict.is_better, f"against version {champion.version}: {verdict.reason}")

    def _holder(self, name: str, alias: str) -> ModelVersion | None:
        """Return the version that holds an alias; None where none does."""
        version = self._client.get_registered_model(name).aliases.get(alias)
        return None if version is None else self._client.get_model_version(name, version)

    def _version_of(self, name: str, maker: str) -> ModelVersion | None:
        query = f"name = '{name}' AND tags.`{STAGE_RUN}` = '{maker}'"
        return next(iter(self._client.search_model_versions(query)), None)


def registered_name(suite: str) -> str:
    """Return the registered model's name for a suite, or for a file of tasks or families.

    >>> registered_name("data/my tasks.jsonl")
    'codedance-my-tasks'
    """
    stem = Path(suite).stem if suite.endswith((".jsonl", ".py")) else suite
    return "codedance-" + "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)
