"""Groups of the next steps, which are generated while the weights are updated.

At step s groups of the steps s to s + k are under way, where k is ``max_staleness``: they begin
with the weights of that step, and go on with newer ones as these arrive. A group belongs to its
step from its draw on. A step waits for its own groups and takes no others, however soon those are
finished: short trajectories have no advantage, and which tasks a step learns from does not depend
on time.

A group that a server sampled from weights which are too old, or not this run's, is dropped, and
its task is played again in its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .....envs.rewards.evidence import EvidenceCache
from .....envs.rewards.terms import is_scored
from .....envs.types import Task, Trajectory
from .....sandbox.types import Sandbox
from ....interface import AsyncPolicy, Policy, PolicyUnavailableError
from ....rollouts.episode_stream import EpisodeStream, StreamSetting
from ....rollouts.losses import Losses
from ....seeds import derive_seed
from ...distributed.processes import World
from ..config import GRPOConfig
from ..groups import Group, is_useless, score
from ..task_order.curriculum import History
from ..task_order.length_estimator import LengthEstimator
from ..task_order.task_draws import TaskDraws
from .weight_age import strange_version

_WORKERS = 16
_MOST_DROPS = 3


class StaleWeightsError(PolicyUnavailableError):
    """Servers keep replying from weights that are too old, or not this run's."""


@dataclass(slots=True, eq=False)
class _Place:
    """A place for one group in a step.

    Attributes:
        step: Step that learns from the group.
        tasks: Task of the place, then spare ones for groups without advantages.
        number: Number of the place within the step.
        cache: Replays that groups of the step share.
        attempt: Which of the tasks is played.
        drops: How often in a row a group was too stale.
        dropped: How often a group was too stale, in all.
        replaced: Groups without advantages.
        result: Final group, once there is one.
    """

    step: int
    tasks: Sequence[Task]
    number: int
    cache: EvidenceCache
    attempt: int = 0
    drops: int = 0
    dropped: int = 0
    replaced: list[Group] = field(default_factory=list[Group])
    result: Future[Group] = field(default_factory=Future[Group])


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What a place has come to, as processes send it to each other."""

    number: int
    group: Group
    replaced: Sequence[Group]
    dropped: int

    @classmethod
    def of(cls, place: _Place) -> _Found:
        """Wait for a place's final group."""
        return cls(place.number, place.result.result(), place.replaced, place.dropped)


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A step that has begun: all its places, and the numbers of those that this process plays."""

    places: Sequence[_Place]
    mine: Sequence[int]


class GroupsAhead:
    """Samples scored groups, up to ``max_staleness`` steps ahead of the training.

    Args:
        tasks: All tasks; an epoch is a permutation.
        config: Settings of the run.
        sandbox: Sandbox in which code runs.
        history: Results of earlier runs on the tasks, for a curriculum by learnability.
        world: Processes that divide the tasks of a step; each has its own sandbox.
        on_stale: Called, in any thread, when a group was too stale: a server may have missed an
            update. None where there are no servers.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        config: GRPOConfig,
        *,
        sandbox: Sandbox,
        history: History | None = None,
        world: World | None = None,
        on_stale: Callable[[], None] | None = None,
    ) -> None:
        self._tasks = tasks
        self._config = config
        self._sandbox = sandbox
        self._world = world or World()
        self._on_stale = on_stale
        self._draws = TaskDraws(tasks, config, history=history)
        self._lengths = LengthEstimator()
        self._losses = Losses()
        self._plans: dict[int, list[list[int]]] = {}
        self._running: dict[int, _Step] = {}
        self._stream: EpisodeStream | None = None
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="evidence")
        self._lock = threading.Lock()
        self._policy_id = ""
        self._figures: dict[str, float] = {}

    def sample(self, policy: Policy, step: int) -> tuple[list[Group], list[Group]]:
        """Begin the groups that are due, and wait for those of a step.

        Args:
            policy: Policy with the weights of this step; the same object in all steps.
            step: Number of the step, from 0.

        Returns:
            Groups to learn from, and groups that were replaced.

        Raises:
            EpisodesLostError: Infrastructure lost every episode of the step.
            StaleWeightsError: A server did not follow the weights.
        """
        self._policy_id = f"grpo/step-{step}"
        if self._stream is None:
            self._stream = self._connect(policy)
        for coming in range(step, min(step + self._config.max_staleness + 1, self._config.steps)):
            if coming not in self._running:
                self._running[coming] = self._begin(coming)
        kept, replaced = self._collect(step)
        played = [one for group in (*kept, *replaced) for one in group.trajectories]
        if not any(is_scored(one) for one in played):
            raise self._losses.error(f"step {step}: all {len(played)} episodes were lost")
        return kept, replaced

    def figures(self) -> Mapping[str, float]:
        """Return how long the last step waited, and what it found."""
        return self._figures

    def state(self) -> dict[str, Any]:
        """Return the state for a resumed run: draws, and the tasks of steps that have begun."""
        return self._draws.state() | {"lengths": self._lengths.state(), "ahead": dict(self._plans)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a result of `state`."""
        self._draws.restore(state)
        self._lengths.restore(state["lengths"])
        self._plans = dict(state["ahead"])

    def close(self) -> None:
        """End all episodes; their groups are begun again by a resumed run."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.__exit__(None, None, None)
        self._pool.shutdown(cancel_futures=True)

    def _connect(self, policy: Policy) -> EpisodeStream:
        if not isinstance(policy, AsyncPolicy):
            raise TypeError(f"expected an asynchronous policy, got {policy.id}")
        config = self._config
        setting = StreamSetting(
            self._sandbox,
            config.sampling,
            interface=config.interface,
            max_turns=config.max_turns,
            batch_size=config.rollout_batch_size,
        )
        return EpisodeStream(policy, setting, on_lost=lambda error: self._losses(error)).__enter__()

    def _plan(self, step: int) -> list[list[int]]:
        """Draw the tasks of a step, by place, each with the spare ones."""
        count, spares = self._config.tasks_per_step, self._config.max_redraws
        self._draws.begin_step()
        firsts = [self._draws.next_place() for _ in range(count)]
        begin = step * count * spares
        return [
            [first, *(self._draws.spare_place(begin + n * spares + i) for i in range(spares))]
            for n, first in enumerate(firsts)
        ]

    def _begin(self, step: int) -> _Step:
        """Begin this process's groups of a step; the others' have a place without a game."""
        if step not in self._plans:
            self._plans[step] = self._plan(step)
        cache: EvidenceCache = {}
        places = [
            _Place(step, [self._tasks[index] for index in indices], number, cache)
            for number, indices in enumerate(self._plans[step])
        ]
        firsts = [place.tasks[0] for place in places]
        mine = self._lengths.shares(firsts, parts=self._world.size)[self._world.rank]
        for number in mine:
            self._play(places[number])
        return _Step(places, mine)

    def _play(self, place: _Place) -> None:
        """Begin the episodes of a place's current task; the last one to end has them scored."""
        config, stream = self._config, self._stream
        if stream is None:
            raise RuntimeError("the groups ahead are closed")
        task = place.tasks[place.attempt]
        seed = derive_seed(config.seed, place.step, place.number, place.attempt, place.drops)
        left = config.num_generations

        def note(_: Future[Trajectory]) -> None:
            nonlocal left
            with self._lock:
                left -= 1
                is_last = left == 0
            if is_last and not any(one.cancelled() for one in episodes):
                self._pool.submit(self._judge, place, episodes)

        episodes = [
            stream.request(
                task, derive_seed("episode", seed, task.id, sample), policy_id=self._policy_id
            )
            for sample in range(config.num_generations)
        ]
        for one in episodes:
            one.add_done_callback(note)

    def _judge(self, place: _Place, episodes: Sequence[Future[Trajectory]]) -> None:
        """Score a group; play a place again whose group is too stale, or has no advantages."""
        try:
            group = self._scored(place, [one.result() for one in episodes])
        except Exception as error:  # noqa: BLE001 - raised in the thread that trains
            place.result.set_exception(error)
            return
        if group is not None:
            place.result.set_result(group)

    def _scored(self, place: _Place, trajectories: Sequence[Trajectory]) -> Group | None:
        """Return the final group of a place; None where it is played again."""
        config = self._config
        version = strange_version(trajectories, place.step, most=config.max_staleness)
        if version is not None:
            self._drop(place, version)
            return None
        group = score(trajectories, config, sandbox=self._sandbox, cache=place.cache)
        if is_useless(group, config) and place.attempt < config.max_redraws:
            place.replaced.append(group)
            place.attempt += 1
            place.drops = 0
            self._play(place)
            return None
        return group

    def _drop(self, place: _Place, version: str) -> None:
        """Play a place's task again, in place of a group that was too stale."""
        place.dropped += 1
        if self._on_stale is not None:
            self._on_stale()
        if place.drops == _MOST_DROPS:
            raise StaleWeightsError(
                f"step {place.step}: a group was sampled from the weights {version!r} "
                f"{_MOST_DROPS + 1} times in a row, and at most {self._config.max_staleness} "
                "steps behind are allowed (grpo.max_staleness): a server does not follow the "
                "weights; look at its log, and resume the run"
            )
        place.drops += 1
        self._play(place)

    def _collect(self, step: int) -> tuple[list[Group], list[Group]]:
        """Wait for the groups of a step; all processes get all of them, by place."""
        begun, running = time.monotonic(), self._running.pop(step)
        places, mine = running.places, running.mine
        ready = sum(places[number].result.done() for number in mine)
        parts = self._world.gather(lambda: [_Found.of(places[number]) for number in mine])
        found = sorted((one for part in parts for one in part), key=lambda one: one.number)
        del self._plans[step]
        for one in found:
            groups = (*one.replaced, one.group)
            for task, group in zip(places[one.number].tasks, groups, strict=False):
                self._lengths.note(task, group.trajectories)
                self._draws.learn(group.trajectories)
        self._figures = {
            "engine/wait_seconds": time.monotonic() - begun,
            "engine/ready_share": ready / max(len(mine), 1),
            "groups_dropped": float(sum(one.dropped for one in found)),
        }
        return [one.group for one in found], [group for one in found for group in one.replaced]
