"""A curriculum starts with results of other trainings in the store, read once."""

from __future__ import annotations

from types import SimpleNamespace

from codedance.pipelines.stages.history import load_history
from codedance.policies.training.grpo.task_order.curriculum import PassRecord

from ..makers import make_lost, make_request, make_task, make_trajectory


def trained(store, task, accuracies, *, seed):
    run = store.lineage.begin(make_request("grpo", seed=seed))
    found = [make_trajectory(task, accuracy=accuracy) for accuracy in accuracies]
    store.add_trajectories(
        [task], [*found, make_lost(task)], stage_run=run.id, phase="train", step=1
    )
    return run


def test_history_is_read_from_other_runs_once(store, tmp_path):
    first, second = make_task(0), make_task(1)
    trained(store, first, [1.0, 1.0, 0.0], seed=0)
    trained(store, first, [0.0], seed=1)
    trained(store, second, [1.0], seed=2)
    own = trained(store, first, [1.0] * 5, seed=3)
    context = SimpleNamespace(folder=tmp_path, store=store, run=own)
    history = load_history(context, {first.id}, phase="train")
    assert history == {first.id: PassRecord(2.0, 4.0)}
    trained(store, first, [1.0] * 9, seed=4)
    assert load_history(context, {first.id}, phase="train") == history


def test_an_empty_store_has_no_history(store, tmp_path):
    own = store.lineage.begin(make_request("grpo"))
    context = SimpleNamespace(folder=tmp_path, store=store, run=own)
    assert load_history(context, {"toy/0"}, phase="train") == {}
