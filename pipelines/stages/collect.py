"""Has a policy act on tasks and stores what it did, chunk by chunk: a second call does the rest.

What infrastructure lost counts as not done: it is played again, and takes the lost one's place.
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


@dataclass(frozen=True, slots=True)
class Collected:
    """How far a phase is.

    Attributes:
        phase: Its name.
        wanted: Episodes that it is to have.
        lost: Of those, how many have no verdict: infrastructure lost them, or nobody was left to
            ask for them.
        losses: Why, as far as this call saw it.
    """

    phase: str
    wanted: int
    lost: int
    losses: Losses

    def check(self) -> None:
        """Refuse to go on with a phase that lacks all or most of its episodes.

        Raises:
            EpisodesLostError: Half of them or more are lost; it holds the server's words.
        """
        if is_too_many(self.lost, self.wanted):
            raise self.losses.error(
                f"{self.phase}: {self.lost} of {self.wanted} episodes lost (the same command plays "
                "them again, and those alone)"
            )


def collect(
    context: StageContext, policy: Policy, tasks: Sequence[Task], session: Session
) -> Collected:
    """Roll the policy out on every task that lacks scored samples; those it has are kept.

    A part of which every episode is lost is the last: whoever is away is not asked thousands of
    times.

    Raises:
        StageInterrupted: The user asked to stop; what is stored stays.
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
    """Return by task id the numbers of the samples that have no verdict yet."""
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
