"""A pipeline small enough for tests, and a stop request at a chosen moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from codedance.pipelines.config.registry import stage_names
from codedance.pipelines.runs.context import Stop
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.runner import run_stage

TINY = """
presets:
  smoke:
    suite: nano
    max_new_tokens: 12
    curate: {candidates: 48, known: 40, weak_samples: 2, strong_samples: 1}
    sft: {steps: 4, batch_size: 4, warmup_steps: 1, save_every: 2}
    grpo: {steps: 3, tasks_per_step: 2, num_generations: 2, save_every: 1}
    evaluate: {limit: 70, batch_size: 32, traces: 1}
    alarms: {window: 2, constant_steps: 2}
"""


class StopAt(Stop):
    """A stop request at the ``count``-th check, like Ctrl-C at that moment."""

    def __init__(self, count):
        super().__init__()
        self._left = count

    def is_requested(self):
        self._left -= 1
        if self._left <= 0:
            self.request()
        return super().is_requested()

    def check(self):
        self.is_requested()
        super().check()


def write_tiny(folder: Path) -> Path:
    """Write a flows.yaml whose smoke preset takes seconds."""
    (folder / "flows.yaml").write_text(TINY, encoding="utf-8")
    return folder


def run_all(session, **run_request):
    """Run every stage without Prefect; return the pipeline's row."""
    pipeline = open_pipeline(session, RunRequest("smoke", **run_request))
    for stage in stage_names():
        run_stage(session, stage, pipeline)
    return session.store.lineage.get(pipeline.id)


def with_function(monkeypatch, module, function):
    """Replace the function of a stage declared in a module."""
    name = f"run_{module.__name__.rpartition('.')[2]}"
    monkeypatch.setattr(module, name, replace(getattr(module, name), run=function))


def story(store, run_id):
    """Return the episodes of a stage run, independent of the order of storing."""
    return sorted(
        (e.phase, e.step, e.task_id, e.sample, e.answer, e.accuracy, e.tool_calls)
        for e in store.episodes(run_id)
    )


def first_run(session):
    """Return the first finished run; the test may have started later ones."""
    return session.store.lineage.find(stage="pipeline")[-1]
