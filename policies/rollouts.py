"""Rollouts: a policy acts on tasks, many episodes side by side, each in its own session.

Episodes of one batch take their turns together: all replies are asked for in one call, then all
code runs in threads. What comes out depends on policy, tasks, seed and batch size only, never on
which session was quick, so that a training run can be repeated bit by bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from ..envs.episode import Episode
from ..envs.evidence import EvidenceCache, record_evidence
from ..envs.parsing import Interface
from ..envs.picture import DEFAULT_MAX_PIXELS
from ..envs.types import Task, Trajectory
from ..sandbox import Sandbox
from .interface import Conversation, Policy, PolicyUnavailableError, Reply, Sampling
from .partial_replies import PartialRepliesError
from .seeds import derive_seed

_WORKERS = 32


@dataclass(frozen=True, slots=True)
class _Setting:
    """What the episodes of a rollout share."""

    sandbox: Sandbox
    interface: Interface
    max_turns: int

    def episode(self, policy: Policy, task: Task, seed: int) -> Episode:
        """Open an episode as the policy was taught to expect it."""
        max_pixels: int | None = getattr(policy, "max_pixels", None)
        return Episode(
            task,
            self.sandbox,
            interface=self.interface,
            max_turns=self.max_turns,
            system_prompt=getattr(policy, "system_prompt", None),
            seed=seed,
            max_pixels=DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels,
        )


@dataclass(frozen=True, slots=True)
class _Running:
    """An episode and what the policy sees of it."""

    episode: Episode
    conversation: Conversation

    def trajectory(self, policy: Policy) -> Trajectory:
        return self.episode.trajectory(policy.id, self.conversation.tokens)


def rollout(  # noqa: PLR0913 - what, how often, where, and how; each by name
    policy: Policy,
    tasks: Sequence[Task],
    *,
    sandbox: Sandbox,
    samples: int = 1,
    seed: int = 0,
    sampling: Sampling | None = None,
    interface: Interface = "code",
    max_turns: int = 6,
    batch_size: int = 128,
    evidence: bool = True,
    on_trajectory: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Let a policy act on each task several times.

    Args:
        policy: Who acts; its ``system_prompt`` and ``max_pixels``, if it has them, are kept to.
        tasks: On what.
        sandbox: Where its code runs.
        samples: Episodes a task.
        seed: Seed of all; an episode's own depends on it, on the task's id and on the sample.
        sampling: How tokens are drawn; the default draws at temperature 1.
        interface: Which tool the policy has.
        max_turns: Turns an episode.
        batch_size: Episodes side by side.
        evidence: Whether to record which calls brought evidence, by replays in the sandbox; the
            presets ``bat`` and ``bat_sequence`` of `score_group` need it.
        on_trajectory: Told of each episode as its batch ends.

    Returns:
        ``len(tasks) * samples`` trajectories, all samples of the first task first. Where the model
        could not be asked, the ending is infrastructure.

    Raises:
        ValueError: ``samples`` or ``batch_size`` is below 1.
    """
    if samples < 1 or batch_size < 1:
        raise ValueError(f"samples and batch_size must be at least 1, got {samples}, {batch_size}")
    setting = _Setting(sandbox, interface, max_turns)
    wanted = _seeded(tasks, samples, seed)
    trajectories: list[Trajectory] = []
    replays: EvidenceCache = {}
    with ThreadPoolExecutor(min(_WORKERS, batch_size), thread_name_prefix="rollout") as pool:
        for start in range(0, len(wanted), batch_size):
            with ExitStack() as stack:
                episodes = [
                    stack.enter_context(setting.episode(policy, task, own_seed))
                    for task, own_seed in wanted[start : start + batch_size]
                ]
                done = _play(policy, episodes, sampling or Sampling(), pool)
            if evidence:
                done = list(
                    pool.map(lambda t: record_evidence(t, t.images, sandbox, replays), done)
                )
            for trajectory in done:
                if on_trajectory is not None:
                    on_trajectory(trajectory)
            trajectories += done
    return trajectories


def finish_episode(
    policy: Policy, episode: Episode, *, sampling: Sampling | None = None
) -> Trajectory:
    """Let a policy act in one episode until it is over; the caller closes the episode."""
    with ThreadPoolExecutor(1, thread_name_prefix="rollout") as pool:
        (trajectory,) = _play(policy, [episode], sampling or Sampling(), pool)
    return trajectory


def _seeded(tasks: Sequence[Task], samples: int, seed: int) -> list[tuple[Task, int]]:
    """Give each episode's task and seed; a task that is named twice gets other seeds then."""
    seen: Counter[str] = Counter()
    wanted: list[tuple[Task, int]] = []
    for task in tasks:
        for _ in range(samples):
            wanted.append((task, derive_seed("episode", seed, task.id, seen[task.id])))
            seen[task.id] += 1
    return wanted


def _begin(episode: Episode) -> _Running:
    conversation = Conversation(
        messages=episode.messages,  # the same list: what the episode says, the policy reads
        seed=episode.seed,
        interface=episode.interface,
        turn=len(episode.turns),
    )
    return _Running(episode, conversation)


def _play(
    policy: Policy, episodes: Sequence[Episode], sampling: Sampling, pool: ThreadPoolExecutor
) -> list[Trajectory]:
    """Take turns until every episode is over."""
    running = [_begin(episode) for episode in episodes]
    while active := [one for one in running if one.episode.ending is None]:
        replies = _ask(policy, [one.conversation for one in active], sampling)
        list(pool.map(_take, active, replies))
    return [one.trajectory(policy) for one in running]


def _ask(
    policy: Policy, conversations: Sequence[Conversation], sampling: Sampling
) -> list[Reply | None]:
    """Ask for replies; None where the model could not be asked."""
    try:
        return list(policy.reply(conversations, sampling=sampling))
    except PartialRepliesError as error:
        return error.replies
    except PolicyUnavailableError:
        return [None] * len(conversations)


def _take(one: _Running, reply: Reply | None) -> None:
    """Give one episode its reply: run what it says, or end the episode."""
    one.conversation.turn += 1
    if reply is None:
        one.episode.fail()
    elif reply.is_cut:
        one.episode.cut(reply.text)
    else:
        one.episode.step(reply.text)
