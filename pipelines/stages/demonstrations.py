"""Demonstrations of a cold start: the curated ones, adapted to the policy's interface.

All interfaces use the same tasks in the same order. With ``code`` a demonstration is the teacher's
own trajectory; with ``box`` its program is replaced by the crop that it looks at, run in the
environment and stored; with ``text`` only the answer remains. Families with direct demonstrations
use no tool with any interface; some families may be limited to easy tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...envs.episode import Episode
from ...envs.types import Difficulty, Task, Trajectory
from ...policies.interface import Demonstration
from ...policies.scripted.box_teacher import box_texts
from ...policies.scripted.teacher import direct_demonstration
from ..analysis.demonstrations import chosen_demonstrations
from ..config.settings import SFTSettings
from ..config.strict_model import read_as
from ..runs.context import StageContext
from ..runs.runner import StageError
from ..store.lineage import StageRun
from ..store.store import Store

BOX_PHASE = "box"
CHUNK = 128
"""Number of crops per write to the store."""


def load_demonstrations(store: Store, curation: StageRun) -> list[Demonstration]:
    """Return the curated demonstrations: a right trajectory of each kept task.

    Raises:
        StageError: No task with a demonstration was kept.
    """
    kept = {row.task_key: row for row in store.curation(curation.id) if row.is_kept}
    chosen = chosen_demonstrations(store, curation)
    if not chosen:
        raise StageError(
            f"{curation.id} kept no task with a demonstration: raise curate.candidates in "
            "flows.yaml, or name a strong policy that solves these tasks (curate.strong)"
        )
    tasks = store.tasks(list(chosen))
    trajectories = store.trajectories(list(chosen.values()))
    return [
        Demonstration(
            task=tasks[key],
            messages=tuple(trajectory.conversation()),
            source=trajectory.policy_id,
            tags=(str(kept[key].demonstration),),
        )
        for key, trajectory in zip(chosen, trajectories, strict=True)
    ]


def shown_demonstrations(context: StageContext) -> list[Demonstration]:
    """Return the curated demonstrations, adapted to this run's interface and settings."""
    settings = read_as(context.preset.sft, SFTSettings)
    interface = context.preset.interface
    curated = [
        one
        for one in load_demonstrations(context.store, context.input("curate"))
        if one.task.family not in settings.easy_alone or one.task.difficulty == Difficulty.EASY
    ]
    toolless = {*settings.shown_directly, *settings.easy_alone}
    with_tools = [
        one
        for one in curated
        if "tools" in one.tags and interface != "text" and one.task.family not in toolless
    ]
    changed = {one.task.id: one for one in with_tools}
    if interface == "box":
        changed = _crops(context, with_tools)
    return [
        changed[one.task.id]
        if one.task.id in changed
        else one
        if "tools" not in one.tags
        else direct_demonstration(one.task)
        for one in curated
    ]


def _crops(
    context: StageContext, demonstrations: Sequence[Demonstration]
) -> dict[str, Demonstration]:
    """Run and store each crop; return the demonstrations by task id."""
    made: dict[str, Demonstration] = {}
    with context.progress.bar("boxes", len(demonstrations)) as bar:
        for start in range(0, len(demonstrations), CHUNK):
            context.stop.check()
            part = demonstrations[start : start + CHUNK]
            trajectories = [_play(context, one.task) for one in part]
            context.store.add_trajectories(
                [one.task for one in part],
                trajectories,
                stage_run=context.run.id,
                phase=BOX_PHASE,
            )
            for one, trajectory in zip(part, trajectories, strict=True):
                messages = tuple(trajectory.conversation())
                made[one.task.id] = replace(one, messages=messages, source=trajectory.policy_id)
            bar.reach(start + len(part))
    return made


def _play(context: StageContext, task: Task) -> Trajectory:
    with Episode(
        task, context.sandbox(), interface="box", system_prompt="", seed=context.seed
    ) as episode:
        for text in box_texts(task):
            episode.step(text)
        return episode.trajectory("box-teacher")
