"""The programs of a stored trajectory are its executed blocks, in order."""

from __future__ import annotations

from codedance.pipelines.store.programs import Program

from ..makers import make_request, make_task, make_trajectory


def test_programs_contain_the_executed_blocks(store):
    run = store.lineage.begin(make_request("grpo"))
    task = make_task(family="count")
    made = [
        make_trajectory(task, calls=3, failed=1),
        make_trajectory(task, calls=0, answer="4", accuracy=0.0),
    ]
    store.add_trajectories([task], made, stage_run=run.id, phase="train", step=7)
    first, second = store.programs(run.id)
    assert first == Program(first.trajectory, "train", 7, "count", True, ("print(1)", "print(2)"))
    assert (second.blocks, second.is_right) == ((), False)
    assert store.programs("none") == []
