"""Rollouts: a policy acts on tasks, with many concurrent episodes, each in its own session.

A streaming policy generates replies with continuous batching (`Scheduler`); of an asynchronous one,
each reply is requested by itself (`AsyncPlay`); other policies reply to a whole batch at a time.
Code runs in threads. By default the result depends on policy, tasks, seed and batch size only,
never on the timing of sessions, so that a training run is reproducible bit for bit; asynchronous
policies promise no such thing.
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
from ...sandbox.plain_text import escape_lines
from ...sandbox.types import Sandbox
from ..inference.partial_replies import PartialRepliesError
from ..interface import (
    AsyncPolicy,
    Conversation,
    LocalPolicy,
    Policy,
    PolicyUnavailableError,
    Reply,
    Sampling,
    StreamingPolicy,
)
from ..seeds import derive_seed
from .async_play import AsyncPlay
from .losses import Losses
from .running_episode import RunningEpisode
from .scheduler import Scheduler
from .trained_with import open_episode

_log = logging.getLogger(__name__)
_WORKERS = 32
_UNDER_WAY = 2  # open episodes per slot, those that wait for their tools included

OnLost = Callable[[Exception | None], None]
"""Called with the error of an episode that infrastructure lost; None where it is unknown."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """Settings that the episodes of a rollout share."""

    sandbox: Sandbox
    interface: Interface | None
    max_turns: int
    evidence: bool
    on_lost: OnLost

    def episode(self, policy: Policy, task: Task, seed: int) -> Episode:
        """Open an episode in the setting that the policy was trained in."""
        return open_episode(
            task,
            self.sandbox,
            policy,
            interface=self.interface,
            max_turns=self.max_turns,
            seed=seed,
        )


def rollout(  # noqa: PLR0913 - policy, tasks and settings; each by name
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
    deterministic: bool | None = None,
    on_trajectory: Callable[[Trajectory], None] | None = None,
    on_lost: OnLost | None = None,
) -> list[Trajectory]:
    """Run several episodes of a policy on each task.

    Args:
        policy: Policy that acts, in the setting that it was trained in (`open_episode`).
        tasks: Tasks to run.
        sandbox: Sandbox in which its code runs.
        samples: Episodes per task; or, by task id, the sample numbers that are left to run.
        seed: Random seed; an episode's own seed depends on it, on the task's id and on the sample.
        sampling: Sampling parameters; the default draws at temperature 1.
        interface: Tool interface; None for the one that the policy was trained with, else ``code``.
        max_turns: Turns per episode.
        batch_size: Episodes whose replies are generated concurrently.
        evidence: Whether to record which calls brought evidence, by replays in the sandbox; the
            presets ``bat`` and ``bat_sequence`` of `score_group` need it.
        deterministic: Whether episodes get their turns in an order that no timing changes; without
            it, and with asynchronous policies, none waits for another's slow tool. None for a model
            on a CPU: on a GPU no order makes sums the same.
        on_trajectory: Called with each trajectory, in order, as soon as those before it are done.
        on_lost: Called with the reason for each lost episode, from any thread; None logs a warning.

    Returns:
        ``len(tasks) * samples`` trajectories, all samples of the first task first; where the model
        was unavailable, the ending is infrastructure.

    Raises:
        ValueError: ``samples`` or ``batch_size`` is below 1.
    """
    if (isinstance(samples, int) and samples < 1) or batch_size < 1:
        raise ValueError(f"samples and batch_size must be at least 1, got {samples}, {batch_size}")
    losses = Losses()
    setting = _Setting(sandbox, interface, max_turns, evidence, on_lost or losses)
    wanted = _seeded(tasks, samples, seed)
    with ThreadPoolExecutor(min(_WORKERS, _UNDER_WAY * batch_size), "rollout") as pool:
        runner = _RolloutRunner(policy, setting, sampling or Sampling(), pool, on_trajectory)
        try:
            is_ordered = _is_on_cpu(policy) if deterministic is None else deterministic
            runner.play(wanted, batch_size, deterministic=is_ordered)
            found = runner.finish()
        finally:
            runner.close()
    if losses.count:
        reason = escape_lines(str(losses.reason))
        _log.warning("%d of %d episodes were lost: %s", losses.count, len(found), reason)
    return found


def _is_on_cpu(policy: Policy) -> bool:
    """Return whether a policy's replies are computed on a CPU, as far as it says."""
    return not isinstance(policy, LocalPolicy) or policy.device_type == "cpu"


def finish_episode(
    policy: Policy, episode: Episode, *, sampling: Sampling | None = None
) -> Trajectory:
    """Run a policy in one episode until it is over; the caller closes the episode."""
    one = RunningEpisode.begin(episode)
    while not one.is_over:
        (reply,) = ask(policy, [one.conversation], sampling or Sampling())
        one.take(reply)
    return one.trajectory(policy)


class _RolloutRunner:
    """The episodes of one rollout: opened in order, finalized in threads, reported in order."""

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
        self._reported: list[Trajectory] = []
        self._opened = 0

    def play(
        self, wanted: Sequence[tuple[Task, int]], batch_size: int, *, deterministic: bool
    ) -> None:
        """Run the wanted episodes, in the way that the policy's kind allows."""
        policy = self._policy
        if isinstance(policy, AsyncPolicy):
            self.play_asynchronously(policy, wanted, batch_size)
        elif isinstance(policy, StreamingPolicy):
            self.play_continuously(policy, wanted, batch_size, deterministic=deterministic)
        else:
            self.play_in_batches(wanted, batch_size)

    def open(self, wanted: Sequence[tuple[Task, int]]) -> Iterator[RunningEpisode]:
        """Open the wanted episodes one by one; report finished ones in the meantime."""
        for task, seed in wanted:
            self._report(wait=False)
            one = RunningEpisode.begin(self._setting.episode(self._policy, task, seed))
            self._running[id(one)] = self._opened, one
            self._opened += 1
            yield one

    def take(self, one: RunningEpisode, reply: Reply | PolicyUnavailableError) -> None:
        """Apply a reply; an episode that ends with it is finalized while others continue."""
        one.take(reply)
        if one.is_over:
            index, _ = self._running[id(one)]
            self._finalizing[index] = self._pool.submit(self._finalize, one)

    def take_whole(self, one: RunningEpisode, reply: Reply | PolicyUnavailableError) -> None:
        """Apply a reply; an episode that ends with it is finalized at once."""
        one.take(reply)
        if one.is_over:
            index, _ = self._running[id(one)]
            done: Future[Trajectory] = Future()
            done.set_result(self._finalize(one))
            self._finalizing[index] = done

    def play_continuously(
        self,
        policy: StreamingPolicy,
        wanted: Sequence[tuple[Task, int]],
        batch_size: int,
        *,
        deterministic: bool,
    ) -> None:
        """Run episodes with continuous batching, for a streaming policy."""
        slots = max(1, min(batch_size, len(wanted)))
        most = _UNDER_WAY * batch_size
        with policy.stream(sampling=self.sampling, slots=slots) as stream:
            play = Scheduler(stream, self._pool, self.take, deterministic=deterministic, most=most)
            play.play(self.open(wanted))

    def play_asynchronously(
        self, policy: AsyncPolicy, wanted: Sequence[tuple[Task, int]], batch_size: int
    ) -> None:
        """Run each episode by itself, for an asynchronous policy."""
        most = _UNDER_WAY * batch_size
        play = AsyncPlay(
            policy, self.sampling, self._pool, self.take_whole, at_once=batch_size, most=most
        )
        play.play(self.open(wanted), lambda: self._report(wait=False))

    def play_in_batches(self, wanted: Sequence[tuple[Task, int]], batch_size: int) -> None:
        """Run episodes batch by batch, for a policy that replies to a whole batch at a time."""
        for start in range(0, len(wanted), batch_size):
            batch = list(self.open(wanted[start : start + batch_size]))
            while active := [one for one in batch if not one.is_over]:
                replies = ask(self._policy, [one.conversation for one in active], self.sampling)
                list(self._pool.map(self.take, active, replies))
            self._report(wait=True)

    def finish(self) -> list[Trajectory]:
        """Wait until all episodes are finalized; return the trajectories in order."""
        self._report(wait=True)
        return self._reported

    def close(self) -> None:
        """Close the sessions of episodes that a failure left open, once no thread is running."""
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

    def _report(self, *, wait: bool) -> None:
        """Report the next finished trajectories, in order."""
        while work := self._finalizing.get(len(self._reported)):
            if not (wait or work.done()):
                break
            trajectory = work.result()
            del self._finalizing[len(self._reported)]
            self._reported.append(trajectory)
            if self._on_trajectory is not None:
                self._on_trajectory(trajectory)


def _seeded(
    tasks: Sequence[Task], samples: int | Mapping[str, Sequence[int]], seed: int
) -> list[tuple[Task, int]]:
    """Return each episode's task and seed; a task listed twice gets different seeds each time."""
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
    """Request replies, each with its wall time; an error in place of a reply holds the reason."""
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
