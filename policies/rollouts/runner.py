"""Rollouts: a policy acts on tasks, many episodes side by side, each in its own session.

A policy that can stream writes replies in slots that episodes join and leave (`Scheduler`); others
are asked for the replies of a whole batch at a time. Code runs in threads. By default what comes
out depends on policy, tasks, seed and batch size only, never on which session was quick, so that a
training run can be repeated bit by bit.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ...envs.episode import Episode
from ...envs.parsing import Interface
from ...envs.rewards.evidence import EvidenceCache, record_evidence
from ...envs.types import Task, Trajectory
from ...sandbox.types import Sandbox
from ..inference.partial_replies import PartialRepliesError
from ..interface import (
    Conversation,
    Policy,
    PolicyUnavailableError,
    Reply,
    Sampling,
    StreamingPolicy,
)
from ..seeds import derive_seed
from .losses import Losses
from .running_episode import RunningEpisode
from .scheduler import Scheduler
from .trained_with import open_episode

_log = logging.getLogger(__name__)
_WORKERS = 32
_UNDER_WAY = 2  # episodes open at a time, those that wait for their tools included, per slot

OnLost = Callable[[Exception | None], None]
"""Told why infrastructure lost an episode; None where nobody knows."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """What the episodes of a rollout share."""

    sandbox: Sandbox
    interface: Interface | None
    max_turns: int
    evidence: bool
    on_lost: OnLost

    def episode(self, policy: Policy, task: Task, seed: int) -> Episode:
        """Open an episode as the policy was taught to expect it."""
        return open_episode(
            task,
            self.sandbox,
            policy,
            interface=self.interface,
            max_turns=self.max_turns,
            seed=seed,
        )


def rollout(  # noqa: PLR0913 - what, how often, where, and how; each by name
    policy: Policy,
    tasks: Sequence[Task],
    *,
    sandbox: Sandbox,
    samples: int | Mapping[str, Sequence[int]] = 1,
    seed: int = 0,
    sampling: Sampling | None = None,
    interface: Interface | None = None,
    max_turns: int = 6,
    batch_size: int = 128,
    evidence: bool = True,
    deterministic: bool = True,
    on_trajectory: Callable[[Trajectory], None] | None = None,
    on_lost: OnLost | None = None,
) -> list[Trajectory]:
    """Let a policy act on each task several times.

    Args:
        policy: Who acts, in the setting that it was taught in (`open_episode`).
        tasks: On what.
        sandbox: Where its code runs.
        samples: Episodes per task; or by task id the numbers of those to play, of a rollout that
            was played in part.
        seed: Seed of all; an episode's own depends on it, on the task's id and on the sample.
        sampling: How tokens are drawn; the default draws at temperature 1.
        interface: Which tool the policy has; None for the one that it was taught, if it says so,
            else ``code``.
        max_turns: Turns an episode.
        batch_size: Episodes whose replies are written side by side.
        evidence: Whether to record which calls brought evidence, by replays in the sandbox; the
            presets ``bat`` and ``bat_sequence`` of `score_group` need it.
        deterministic: Whether the order in which episodes get their turns is the same whatever the
            sandbox's timing; without it no slot waits for a slow tool.
        on_trajectory: Told of each episode, in order, as soon as those before it are done.
        on_lost: Told why, for each episode that infrastructure lost, from any thread; None for one
            warning in the log.

    Returns:
        ``len(tasks) * samples`` trajectories, all samples of the first task first. Where the model
        could not be asked, the ending is infrastructure.

    Raises:
        ValueError: ``samples`` or ``batch_size`` is below 1.
    """
    if (isinstance(samples, int) and samples < 1) or batch_size < 1:
        raise ValueError(f"samples and batch_size must be at least 1, got {samples}, {batch_size}")
    losses = Losses()
    setting = _Setting(sandbox, interface, max_turns, evidence, on_lost or losses)
    wanted = _seeded(tasks, samples, seed)
    with ThreadPoolExecutor(
        min(_WORKERS, _UNDER_WAY * batch_size), thread_name_prefix="rollout"
    ) as pool:
        runner = _RolloutRunner(policy, setting, sampling or Sampling(), pool, on_trajectory)
        try:
            if isinstance(policy, StreamingPolicy):
                runner.play_continuously(policy, wanted, batch_size, deterministic=deterministic)
            else:
                runner.play_in_batches(wanted, batch_size)
            found = runner.finish()
        finally:
            runner.close()
    if losses.count:
        _log.warning("%d of %d episodes were lost: %s", losses.count, len(found), losses.reason)
    return found


def finish_episode(
    policy: Policy, episode: Episode, *, sampling: Sampling | None = None
) -> Trajectory:
    """Let a policy act in one episode until it is over; the caller closes the episode."""
    one = RunningEpisode.begin(episode)
    while not one.is_over:
        (reply,) = ask(policy, [one.conversation], sampling or Sampling())
        one.take(reply)
    return one.trajectory(policy)


class _RolloutRunner:
    """The episodes of one rollout: opened in order, wound up in threads, told in order."""

    def __init__(
        self,
        policy: Policy,
        setting: _Setting,
        sampling: Sampling,
        pool: ThreadPoolExecutor,
        on_trajectory: Callable[[Trajectory], None] | None,
    ) -> None:
        self.sampling = sampling
        self._policy = policy
        self._setting = setting
        self._pool = pool
        self._on_trajectory = on_trajectory
        self._replays: EvidenceCache = {}
        self._running: dict[int, tuple[int, RunningEpisode]] = {}
        self._finalizing: dict[int, Future[Trajectory]] = {}
        self._told: list[Trajectory] = []
        self._opened = 0

    def open(self, wanted: Sequence[tuple[Task, int]]) -> Iterator[RunningEpisode]:
        """Open the wanted episodes one by one, telling of those that are done meanwhile."""
        for task, seed in wanted:
            self._tell(wait=False)
            one = RunningEpisode.begin(self._setting.episode(self._policy, task, seed))
            self._running[id(one)] = self._opened, one
            self._opened += 1
            yield one

    def take(self, one: RunningEpisode, reply: Reply | PolicyUnavailableError) -> None:
        """Run what a reply says; an episode that ends by it is graded while others go on."""
        one.take(reply)
        if one.is_over:
            index, _ = self._running[id(one)]
            self._finalizing[index] = self._pool.submit(self._finalize, one)

    def play_continuously(
        self,
        policy: StreamingPolicy,
        wanted: Sequence[tuple[Task, int]],
        batch_size: int,
        *,
        deterministic: bool,
    ) -> None:
        """Keep slots filled, with a policy that others may join while it writes."""
        slots = max(1, min(batch_size, len(wanted)))
        most = _UNDER_WAY * batch_size
        with policy.stream(sampling=self.sampling, slots=slots) as stream:
            play = Scheduler(stream, self._pool, self.take, deterministic=deterministic, most=most)
            play.play(self.open(wanted))

    def play_in_batches(self, wanted: Sequence[tuple[Task, int]], batch_size: int) -> None:
        """Take turns, batch after batch, with a policy that answers all of one at a time."""
        for start in range(0, len(wanted), batch_size):
            batch = list(self.open(wanted[start : start + batch_size]))
            while active := [one for one in batch if not one.is_over]:
                replies = ask(self._policy, [one.conversation for one in active], self.sampling)
                list(self._pool.map(self.take, active, replies))
            self._tell(wait=True)

    def finish(self) -> list[Trajectory]:
        """Wait for all that is being wound up; gives the trajectories in order."""
        self._tell(wait=True)
        return self._told

    def close(self) -> None:
        """End the sessions of episodes that a failure left open, once no thread is at work."""
        self._pool.shutdown(cancel_futures=True)
        for _, one in self._running.values():
            one.episode.close()

    def _finalize(self, one: RunningEpisode) -> Trajectory:
        trajectory = one.trajectory(self._policy)
        one.episode.close()
        del self._running[id(one)]
        if not trajectory.is_valid or trajectory.accuracy is None:
            self._setting.on_lost(one.episode.failure)
        if not self._setting.evidence:
            return trajectory
        sandbox = self._setting.sandbox
        return record_evidence(trajectory, trajectory.images, sandbox, self._replays)

    def _tell(self, *, wait: bool) -> None:
        """Tell of the trajectories whose turn it is, in order."""
        while (work := self._finalizing.get(len(self._told))) is not None and (wait or work.done()):
            trajectory = work.result()
            del self._finalizing[len(self._told)]
            self._told.append(trajectory)
            if self._on_trajectory is not None:
                self._on_trajectory(trajectory)


def _seeded(
    tasks: Sequence[Task], samples: int | Mapping[str, Sequence[int]], seed: int
) -> list[tuple[Task, int]]:
    """Return each episode's task and seed; a task that is named twice gets other seeds then."""
    seen: Counter[str] = Counter()
    wanted: list[tuple[Task, int]] = []
    for task in tasks:
        numbers = range(samples) if isinstance(samples, int) else samples[task.id]
        for number in numbers:
            place = seen[task.id] + number
            wanted.append((task, derive_seed("episode", seed, task.id, place)))
        if isinstance(samples, int):
            seen[task.id] += samples
    return wanted


def ask(
    policy: Policy, conversations: Sequence[Conversation], sampling: Sampling
) -> list[Reply | PolicyUnavailableError]:
    """Ask for replies, each with its time; an error says why the model could not be asked."""
    begun = time.monotonic()
    found: list[Reply | PolicyUnavailableError]
    try:
        found = list(policy.reply(conversations, sampling=sampling))
    except PartialRepliesError as error:
        both = zip(error.replies, error.errors, strict=True)
        found = [reply if reply is not None else why or error for reply, why in both]
    except PolicyUnavailableError as error:
        return [error] * len(conversations)
    seconds = time.monotonic() - begun
    return [one.timed(seconds) if isinstance(one, Reply) else one for one in found]
