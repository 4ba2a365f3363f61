"""Collect trajectories of a policy on tasks and store them by chunk; a second call resumes.

Episodes that infrastructure lost count as missing: they are rerun, and the new ones replace them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...envs.parsing import Interface
from ...envs.types import Task, Trajectory
from ...policies.interface import Policy, Sampling
from ...policies.rollouts.losses import Losses, is_too_many
from ..runs.context import StageContext

CHUNK_TRAJECTORIES = 64
"""Smallest number of trajectories per write to the store; Ctrl-C loses at most one chunk."""


@dataclass(frozen=True, slots=True)
class Session:
    """Settings of the rollouts of one phase.

    Attributes:
        phase: Name under which the trajectories are stored.
        samples: Trajectories per task.
        sampling: Sampling parameters.
        max_turns: Largest number of turns per episode.
        batch_size: Conversations per batch.
        interface: Interface of the policy's tool.
    """

    phase: str
    samples: int
    sampling: Sampling
    max_turns: int
    batch_size: int = 64
    interface: Interface = "code"


@dataclass(frozen=True, slots=True)
class Collected:
    """State of a phase after `collect`.

    Attributes:
        phase: Name of the phase.
        wanted: Intended number of episodes of the phase.
        lost: Number of those without a verdict: infrastructure lost them, or the phase ended before
            they were run.
        losses: Reasons for the losses in this call.
    """

    phase: str
    wanted: int
    lost: int
    losses: Losses

    def check(self) -> None:
        """Refuse to continue with a phase that lacks too many of its episodes.

        Raises:
            EpisodesLostError: Half of the episodes or more are lost; it has the server's message.
        """
        if is_too_many(self.lost, self.wanted):
            raise self.losses.error(
                f"{self.phase}: {self.lost} of {self.wanted} episodes lost (the same command "
                "reruns only those)"
            )


def collect(
    context: StageContext, policy: Policy, tasks: Sequence[Task], session: Session
) -> Collected:
    """Roll the policy out on every task that lacks scored samples; existing samples are kept.

    Collection stops after a chunk whose episodes are all lost, so that an unreachable server is not
    called thousands of times.

    Raises:
        StageInterrupted: The user requested a stop; stored trajectories are kept.
    """
    missing = _missing(context, tasks, session)
    left = [task for task in tasks if missing[task.id]]
    chunk = max(1, max(CHUNK_TRAJECTORIES, session.batch_size) // session.samples)
    done = len(tasks) - len(left)
    right = scored = 0.0
    losses = Losses()
    with context.progress.bar(session.phase, len(tasks), done=done) as bar:
        for start in range(0, len(left), chunk):
            context.stop.check()
            part = left[start : start + chunk]
            numbers = {task.id: missing[task.id] for task in part}
            trajectories = _roll_out(context, policy, part, session, numbers, losses)
            context.store.add_trajectories(
                part,
                trajectories,
                stage_run=context.run.id,
                phase=session.phase,
                samples=numbers,
            )
            verdicts = [t.accuracy for t in trajectories if t.accuracy is not None]
            right, scored = right + sum(verdicts), scored + len(verdicts)
            note = f"accuracy {right / scored:.0%}" if scored else ""
            done += len(part)
            bar.reach(done, note=note)
            if not verdicts:
                break
    lost = sum(len(numbers) for numbers in _missing(context, tasks, session).values())
    return Collected(session.phase, len(tasks) * session.samples, lost, losses)


def _missing(
    context: StageContext, tasks: Sequence[Task], session: Session
) -> dict[str, list[int]]:
    """Return the numbers of the samples without a verdict, by task id."""
    keys = context.store.add_tasks(tasks)
    scored = context.store.scored_samples(context.run.id, session.phase)
    return {
        task.id: [n for n in range(session.samples) if n not in scored.get(keys[task.id], ())]
        for task in tasks
    }


def _roll_out(
    context: StageContext,
    policy: Policy,
    tasks: Sequence[Task],
    session: Session,
    numbers: Mapping[str, Sequence[int]],
    losses: Losses,
) -> list[Trajectory]:
    from ...policies import rollout

    return rollout(
        policy,
        tasks,
        samples=numbers,
        sandbox=context.sandbox(),
        seed=context.seed,
        sampling=session.sampling,
        interface=session.interface,
        max_turns=session.max_turns,
        batch_size=session.batch_size,
        evidence=False,
        on_lost=losses,
    )
