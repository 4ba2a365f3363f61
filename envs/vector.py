"""Vector environment: threads over one sandbox, since the work is done by its sessions.

A sandbox failure in one member (`SandboxError`) ends that member's episode as ``infrastructure``
(``truncated``, reward 0.0, ``is_valid`` False), and the others continue. Every other exception is
an error of the program or the machine and is raised as by a single environment, with the same type
and the member's number before its message.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from ..sandbox.capacity import core_count
from .freed_memory import give_back
from .suites.loading import load_suite
from .vector_members import Member, lost_member, named_error, places_over, unless_lost
from .visual_code import VisualCodeEnv, wrong_action

_MOST_THREADS = 64

Batch = dict[str, tuple[Any, ...]]
"""``{"text": one string per member, "images": one tuple of arrays per member}``."""


class VisualCodeVectorEnv(VectorEnv[Batch, Sequence[str], NDArray[Any]]):
    """Members that step in parallel, each like a single `VisualCodeEnv`.

    Action space:
        `gymnasium.spaces.Tuple` of one `AnyText` per member: one text per member.

    Observation space:
        `gymnasium.spaces.Dict` of ``text`` (one string per member) and ``images`` (one tuple of RGB
        arrays ``(H, W, 3)``, uint8, per member), each member's as in `VisualCodeEnv`.

    Rewards:
        Array ``(num_envs,)``, float64, each member's as in `VisualCodeEnv`; 0.0 for a member that
        is reset in place of a step, that has ended (``DISABLED``), or whose sandbox failed.

    Starting state:
        `reset` starts an episode in every member, or in those of ``options["reset_mask"]``, as in
        `VisualCodeEnv`; an integer seed is that of the first member, the following ones count up.

    Episode end:
        - Termination: as in `VisualCodeEnv`.
        - Truncation: as in `VisualCodeEnv`, a sandbox failure in the member, or
          ``max_episode_steps`` steps.

        A member that has ended is reset by ``autoreset_mode``.

    Args:
        num_envs: Number of members.
        autoreset_mode: Gymnasium's mode; with ``DISABLED`` a member that has ended stays so,
            with reward 0.0, until ``reset(options={"reset_mask": …})``.
        max_episode_steps: Steps after which an episode is truncated, as by `TimeLimit`; None for
            no limit.
        settings: Arguments of `VisualCodeEnv`, the same for every member.

    After an exception every member is in a known state. An action that is not a string is refused
    before any member steps. All other exceptions are raised after all members have finished: those
    that succeeded have taken their step (or started their episode) and keep it, and the one named
    by the exception has no episode. It is reset at the next `step` (with ``DISABLED``, at a `reset`
    that selects it), and `close` works as usual.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        **settings: Any,  # noqa: ANN401 - passed on
    ) -> None:
        super().__init__()
        for name, value in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        suite = settings.pop("suite", "nano")
        if isinstance(suite, str | os.PathLike):
            suite = load_suite(suite, split=settings.get("split", "train"))
        self.envs = [VisualCodeEnv(suite, **settings) for _ in range(num_envs)]
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**VisualCodeEnv.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = self.envs[0].render_mode
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._members: list[Member] = [
            lost_member("", self.envs[0].preset) for _ in range(num_envs)
        ]
        self._most_steps = math.inf if max_episode_steps is None else max_episode_steps
        self._steps = [0] * num_envs
        self._is_begun = False
        self._failed: set[int] = set()  # members whose newest step or reset raised
        self._episodes = 0  # started since freed memory was last returned to the system
        self._pool = ThreadPoolExecutor(min(num_envs, _MOST_THREADS), "visual-code")
        # Tasks are drawn in this process, and each drawing thread retains megabytes for the next.
        self._resets = ThreadPoolExecutor(min(num_envs, core_count()), "visual-code-reset")

    @property
    def np_random(self) -> tuple[np.random.Generator, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The members' generators, as in Gymnasium's own vector environments."""
        return self.get_attr("np_random")

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The seeds of the members' generators."""
        return self.get_attr("np_random_seed")

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Batch, dict[str, Any]]:
        """Start an episode in every member, or in those of ``options["reset_mask"]``.

        Args:
            seed: Random seed of the first member, from which the others count up; or one seed per
                member.
            options: Options of `VisualCodeEnv.reset`; a list holds one value per member.

        Raises:
            ValueError: A requested task does not exist, a length differs from the number of
                members, or the mask selects no member.
            TypeError: The mask is not an array of booleans.
            ClosedEnvironmentError: `close` was called.
            Exception: A member raised another exception than `SandboxError`; names the member.
        """
        self._require_open()
        options = dict(options or {})
        chosen = self._chosen(options.pop("reset_mask", None))
        seeds = self._seeds(seed)
        each = [self._options_of(place, options) for place in range(self.num_envs)]

        def begin(place: int) -> Member:
            return self._begin(place, seeds[place], each[place])

        self._keep(self._done({place: self._resets.submit(begin, place) for place in chosen}))
        self._is_begun = True
        infos: dict[str, Any] = {}
        for place in chosen:
            infos = self._add_info(infos, self._members[place][4], place)
        self._trim_memory()
        return self._observations(), infos

    def step(
        self, actions: Sequence[str]
    ) -> tuple[Batch, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step every member; one that has ended is reset instead (by the autoreset mode).

        Raises:
            ResetNeeded: No episode was started, or a member that raised was not reset.
            ValueError: The number of actions differs from the number of members.
            TypeError: An action is not a string; no member has stepped.
            ClosedEnvironmentError: `close` was called.
            Exception: A member raised another exception than `SandboxError`; names the member.
        """
        self._require_open()
        self._require_begun()
        self._check(actions)
        stepped = self._stepped(actions)
        over = places_over(stepped) if self.autoreset_mode is AutoresetMode.SAME_STEP else []
        begun = self._done({place: self._resets.submit(self._begin, place) for place in over})
        self._keep(begun)
        infos: dict[str, Any] = {}
        for place, member in enumerate(stepped):
            if place in begun:
                final = {"final_obs": member[0], "final_info": member[4]}
                infos = self._add_info(infos, final, place)
            infos = self._add_info(infos, self._members[place][4], place)
        self._trim_memory()
        rewards = np.array([member[1] for member in stepped], dtype=np.float64)
        terminations = np.array([member[2] for member in stepped], dtype=np.bool_)
        truncations = np.array([member[3] for member in stepped], dtype=np.bool_)
        return self._observations(), rewards, terminations, truncations, infos

    def render(self) -> tuple[Any, ...]:
        """Return each member's rendering."""
        return tuple(env.render() for env in self.envs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:  # noqa: ANN401
        """Call a method or read an attribute of each member; return one value per member."""
        values: list[Any] = []
        for place, env in enumerate(self.envs):
            try:
                found = env.get_wrapper_attr(name)
                values.append(found(*args, **kwargs) if callable(found) else found)
            except Exception as error:
                named_error(error, place)
                raise
        return tuple(values)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of each member."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:  # noqa: ANN401 - whatever the attribute is
        """Set an attribute; a list or tuple holds one value per member.

        Raises:
            ValueError: The number of values differs from the number of members.
        """
        each = values if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise ValueError(f"{self.num_envs} members need as many values, got {len(each)}")
        for env, value in zip(self.envs, each, strict=True):
            env.set_wrapper_attr(name, value)

    def close_extras(self, **kwargs: Any) -> None:  # noqa: ANN401 - Gymnasium's signature
        """Close the members and the threads."""
        del kwargs
        self._pool.shutdown()
        self._resets.shutdown()
        for env in self.envs:
            env.close()
        give_back()

    def _trim_memory(self) -> None:
        """Return freed memory to the system, once per episode of all members."""
        self._episodes += self._steps.count(0)  # those that have just started
        if self._episodes >= self.num_envs:
            self._episodes = 0
            give_back()

    def _require_open(self) -> None:
        if self.closed:
            raise gymnasium.error.ClosedEnvironmentError("the vector environment was closed")

    def _require_begun(self) -> None:
        if not self._is_begun:
            raise gymnasium.error.ResetNeeded("call reset() first: no episode was begun")
        if self._failed and self.autoreset_mode is AutoresetMode.DISABLED:
            raise gymnasium.error.ResetNeeded(
                f"environments {sorted(self._failed)} raised an exception in their last call; "
                'select them with reset(options={"reset_mask": …})'
            )

    def _check(self, actions: Sequence[str]) -> None:
        """Refuse invalid actions before any member steps."""
        if isinstance(actions, str):
            raise TypeError("actions are a sequence with a str per member; got one str")
        if len(actions) != self.num_envs:
            raise ValueError(f"{self.num_envs} members need as many actions, got {len(actions)}")
        for place in set(range(self.num_envs)) - set(places_over(self._members)):
            action = actions[place]
            if not isinstance(action, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise named_error(wrong_action(action), place)

    def _stepped(self, actions: Sequence[str]) -> list[Member]:
        """Step the members; those that have ended are reset meanwhile (unless ``DISABLED``)."""
        is_disabled = self.autoreset_mode is AutoresetMode.DISABLED
        over = [] if is_disabled else places_over(self._members)
        work = {place: self._resets.submit(self._begin, place) for place in over}
        for place in sorted(set(range(self.num_envs)) - set(over)):
            work[place] = self._pool.submit(self._step_member, place, actions[place])
        self._keep(self._done(work))
        return list(self._members)

    def _keep(self, members: Mapping[int, Member]) -> None:
        for place, member in members.items():
            self._members[place] = member

    def _done(self, work: Mapping[int, Future[Member]]) -> dict[int, Member]:
        """Wait for all members; where one raised, keep the results of the others and re-raise."""
        wait(work.values())
        raised = {place: error for place in sorted(work) if (error := work[place].exception())}
        done = {place: work[place].result() for place in work if place not in raised}
        self._failed = (self._failed - set(done)) | set(raised)
        if not raised:
            return done
        self._keep(done)
        self._keep(dict.fromkeys(raised, lost_member("", self.envs[0].preset)))
        place = min(raised)
        raise named_error(raised[place], place)

    def _step_member(self, place: int, action: str) -> Member:
        observation, _, terminated, truncated, info = self._members[place]
        is_disabled = self.autoreset_mode is AutoresetMode.DISABLED
        if is_disabled and (terminated or truncated):
            terms = dict.fromkeys(info["reward_terms"], 0.0)
            return observation, 0.0, terminated, truncated, {**info, "reward_terms": terms}
        self._steps[place] += 1
        observation, reward, terminated, truncated, info = unless_lost(
            self.envs[place], lambda: self.envs[place].step(action)
        )
        is_cut = truncated or self._steps[place] >= self._most_steps
        return observation, reward, terminated, is_cut, info

    def _begin(
        self, place: int, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> Member:
        """Reset a member; after a sandbox failure it is lost and reset at its next step."""

        def reset() -> Member:
            observation, info = self.envs[place].reset(seed=seed, options=options)
            return observation, 0.0, False, False, info

        self._steps[place] = 0
        return unless_lost(self.envs[place], reset)

    def _observations(self) -> Batch:
        observations = [member[0] for member in self._members]
        return {key: tuple(one[key] for one in observations) for key in ("images", "text")}

    def _chosen(self, mask: object) -> list[int]:
        """Return the members that a reset mask selects; all members without a mask."""
        if mask is None:
            return list(range(self.num_envs))
        if not (isinstance(mask, np.ndarray) and mask.dtype == np.bool_):
            raise TypeError(f"reset_mask must be an array of booleans, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask must have shape ({self.num_envs},) and pick a member, got {mask}"
            )
        return [int(place) for place in np.flatnonzero(mask)]

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int):
            return [seed + place for place in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"{self.num_envs} members need as many seeds, got {len(seed)}")
        return list(seed)

    def _options_of(self, place: int, options: dict[str, Any]) -> dict[str, Any]:
        for key, value in options.items():
            if isinstance(value, list) and len(value) != self.num_envs:
                raise ValueError(f"{key!r} has {len(value)} values for {self.num_envs} members")
        return {
            key: value[place] if isinstance(value, list) else value
            for key, value in options.items()
        }
