"""Has a policy act on tasks and stores what it did, chunk by chunk: a second call does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...envs.parsing import Interface
from ...envs.types import Task, Trajectory
from ...policies.interface import Policy, Sampling
from .context import StageContext

CHUNK_TRAJECTORIES = 64
"""At least as many trajectories between two visits to the store: what a Ctrl-C can cost."""


@dataclass(frozen=True, slots=True)
class Session:
    """How a policy is asked in one phase.

    Attributes:
        phase: The name under which its trajectories are stored.
        samples: Trajectories a task.
        sampling: How it draws tokens.
        max_turns: Turns it gets.
        batch_size: Conversations asked at once.
        interface: Which tool it has.
    """

    phase: str
    samples: int
    sampling: Sampling
    max_turns: int
    batch_size: int = 64
    interface: Interface = "code"


def collect(context: StageContext, policy: Policy, tasks: Sequence[Task], session: Session) -> None:
    """Roll the policy out on every task that has too few stored samples.

    Raises:
        StageInterrupted: The user asked to stop; what is stored stays.
    """
    store = context.store
    keys = store.add_tasks(tasks)
    stored = store.stored_samples(context.run.id, session.phase)
    left = [task for task in tasks if stored.get(keys[task.id], 0) < session.samples]
    chunk = max(1, max(CHUNK_TRAJECTORIES, session.batch_size) // session.samples)
    done = len(tasks) - len(left)
    right = scored = 0.0
    with context.progress.bar(session.phase, len(tasks), done=done) as bar:
        for start in range(0, len(left), chunk):
            context.stop.check()
            part = left[start : start + chunk]
            trajectories = _roll_out(context, policy, part, session)
            store.add_trajectories(
                part, trajectories, stage_run=context.run.id, phase=session.phase
            )
            right += sum(t.accuracy or 0.0 for t in trajectories)
            scored += sum(t.accuracy is not None for t in trajectories)
            note = f"accuracy {right / scored:.0%}" if scored else ""
            done += len(part)
            bar.reach(done, note=note)


def _roll_out(
    context: StageContext, policy: Policy, tasks: Sequence[Task], session: Session
) -> list[Trajectory]:
    from ...policies import rollout

    return rollout(
        policy,
        tasks,
        samples=session.samples,
        sandbox=context.sandbox(),
        seed=context.seed,
        sampling=session.sampling,
        interface=session.interface,
        max_turns=session.max_turns,
        batch_size=session.batch_size,
        evidence=False,
    )
