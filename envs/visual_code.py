"""The Gymnasium environment: questions about pictures, answered by writing text and code.

The reward is step-wise and holds every term where it falls due: a failed block costs at once, the
rest comes with the ending. Outside a group mu is the task's own pass rate (one half where unknown),
so the same seed and the same actions give the same rewards in any order of episodes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from ..sandbox import Limits
from ..sandbox.shared import SharedSandbox
from ..sandbox.types import Sandbox
from .episode import Episode, EpisodeState
from .parsing import INTERFACES, Interface
from .picture import DEFAULT_MAX_PIXELS, picture_array
from .rendering import turn_picture, turn_text
from .rewards.evidence import record_evidence
from .rewards.presets import RewardPreset
from .rewards.registry import own_term_names, with_terms
from .rewards.terms import TERMS, needs_evidence, score_trajectory
from .spaces import AnyText, observation_space
from .suites.base import Split, Suite
from .suites.filtered import ChosenFamilies
from .suites.loading import load_suite
from .types import Ending, Task, Trajectory

Observation = dict[str, Any]
"""``{"text": str, "images": tuple of (H, W, 3) uint8 arrays}``."""

Observe = Literal["newest", "transcript"]
RENDER_MODES = ("ansi", "rgb_array", "human")


@dataclass(frozen=True, slots=True, eq=False)
class EnvState:
    """Where an environment stands: a value to go on from, any number of times.

    Attributes:
        task: What is asked; it holds the answer, so it is not for a policy's eyes.
        episode: Turns, ending and session.
        random_state: Of the environment's generator, which draws later tasks.
    """

    task: Task
    episode: EpisodeState
    random_state: Mapping[str, Any]


class VisualCodeEnv(gymnasium.Env[Observation, str]):
    """One question about pictures an episode; an action is a policy's text.

    Args:
        suite: A name or path for `load_suite`, or a suite.
        split: ``train`` or ``test``.
        families: Only these of the suite's, in turns; None for all.
        interface: Which tool the policy has: ``code``, ``box`` or ``text``.
        reward: A preset of `rewards` or its name.
        reward_terms: Own terms besides, with their weights (`with_terms`).
        max_turns: Turns of the policy; the reply before the last says to answer.
        sandbox: A backend, whose sandbox this process's environments share, or an open sandbox.
        limits: Of each session; None for the defaults. An open sandbox has its own.
        observe: ``newest`` message or the ``transcript`` so far.
        max_pixels: Larger pictures are shrunk, for policy and code alike.
        system_prompt: First message of the transcript; None for the interface's own.
        render_mode: ``ansi``, ``rgb_array`` or ``human`` (prints each turn).

    Raises:
        ValueError: An unknown suite, split, interface, preset, term, backend or mode.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 1}  # noqa: RUF012

    def __init__(  # noqa: PLR0913 - the keywords of gym.make
        self,
        suite: str | os.PathLike[str] | Suite = "nano",
        split: Split = "train",
        *,
        families: Sequence[str] | None = None,
        interface: Interface = "code",
        reward: str | RewardPreset = "bat",
        reward_terms: Mapping[str, float] | None = None,
        max_turns: int = 6,
        sandbox: str | Sandbox = "local",
        limits: Limits | None = None,
        observe: Observe = "newest",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        system_prompt: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        _require("interface", interface, INTERFACES)
        _require("observe", observe, ("newest", "transcript"))
        _require("render_mode", render_mode, (None, *RENDER_MODES))
        if max_turns < 1:
            raise ValueError(f"max_turns must be at least 1, got {max_turns}")
        is_named = isinstance(suite, str | os.PathLike)
        whole = load_suite(suite, split=split) if is_named else suite
        self.suite = whole if families is None else ChosenFamilies(whole, families)
        self.preset = with_terms(reward, reward_terms)
        self.sandbox = SharedSandbox(sandbox, limits) if isinstance(sandbox, str) else sandbox
        self._runs_code = interface != "text"
        self.render_mode = render_mode
        self.accuracy_of: Callable[[Task], float] = known_accuracy
        self.observation_space = observation_space()
        self.action_space = AnyText()
        self._observe = observe
        self._episode: Episode | None = None
        self._new_episode = partial(
            Episode,
            sandbox=self.sandbox,
            interface=interface,
            max_turns=max_turns,
            system_prompt=system_prompt,
            max_pixels=max_pixels,
        )

    @property
    def episode(self) -> Episode:
        """The episode that goes on, or ended last.

        Raises:
            ResetNeeded: None was begun.
        """
        if self._episode is None:
            raise ResetNeeded("call reset() first: no episode was begun")
        return self._episode

    @property
    def has_begun(self) -> bool:
        """Whether an episode was begun."""
        return self._episode is not None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode on a task drawn from the suite.

        Args:
            seed: Of the draws of tasks and of the sessions' random sources.
            options: ``{"task_id": …}`` or ``{"task": Task}`` picks the task.

        Raises:
            ValueError: An unknown option, or no such task.
            SandboxUnavailableError: This machine cannot run the backend; the words say what to do.
        """
        if self._runs_code and isinstance(self.sandbox, SharedSandbox):
            self.sandbox.require()
        super().reset(seed=seed)
        index = int(self.np_random.integers(len(self.suite)))
        session_seed = int(self.np_random.integers(2**31))
        self._close_episode()
        task = self._picked(options or {})
        self._episode = self._new_episode(
            self.suite[index] if task is None else task, seed=session_seed
        )
        self._show()
        return self._observation(), self._info(self._no_terms())

    def step(self, action: str) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take the policy's text; give what comes back.

        Raises:
            ResetNeeded: No episode goes on.
            TypeError: The action is not a string; the episode is as it was.
            SandboxUnavailableError: This machine can no longer run the backend.
        """
        episode = self.episode
        if episode.ending is not None:
            raise ResetNeeded(f"the episode is over ({episode.ending}); call reset()")
        if not isinstance(action, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise wrong_action(action)
        turn = episode.step(action)
        terms = self._no_terms()
        if turn.has_failed:
            terms["tool_turn"] = -self.preset.turn_weight * self.preset.penalty + 0.0
        if self.episode.ending is not None:
            terms |= self._final_terms()
        self._show()
        ending = self.episode.ending
        is_lost = ending is Ending.INFRASTRUCTURE
        is_over = ending is not None and not is_lost
        info = self._info(terms)
        return self._observation(), sum(terms.values()), is_over, is_lost, info

    def trajectory(self, policy_id: str = "unknown") -> Trajectory:
        """Return the finished episode as a trajectory, for stores and group rewards.

        Raises:
            RuntimeError: The episode goes on.
        """
        return self.episode.trajectory(policy_id)

    def clone_state(self) -> EnvState:
        """Return where the environment stands; the sessions of later episodes replay from it."""
        state = deepcopy(self.np_random.bit_generator.state)
        return EnvState(self.episode.task, self.episode.snapshot(), cast(dict[str, Any], state))

    def restore_state(self, state: EnvState) -> None:
        """Go on from ``state``, which an environment with the same settings gave."""
        self._close_episode()
        self.np_random.bit_generator.state = deepcopy(dict(state.random_state))
        self._episode = self._new_episode(state.task, seed=state.episode.seed)
        self._episode.resume(state.episode)

    def render(self) -> str | NDArray[np.uint8] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Show the newest turn: as text, as a picture ``(H, W, 3)``, or printed (``human``)."""
        if self.render_mode is None:
            gymnasium.logger.warn(f"pass render_mode to gym.make, one of {', '.join(RENDER_MODES)}")
            return None
        if self.render_mode == "rgb_array":
            return turn_picture(self.episode)
        text = turn_text(self.episode)
        if self.render_mode == "ansi":
            return text
        sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
        return None

    def close(self) -> None:
        """End the episode's session and let go of the shared sandbox."""
        self._close_episode()
        if isinstance(self.sandbox, SharedSandbox):
            self.sandbox.close()

    def _picked(self, options: Mapping[str, Any]) -> Task | None:
        for key in options:
            _require("option of reset", key, ("task_id", "task"))
        if "task" in options:
            return options["task"]
        if "task_id" not in options:
            return None
        try:
            return self.suite.task(options["task_id"])
        except KeyError as error:
            raise ValueError(f"reset cannot pick the task: {error.args[0]}") from None

    def _final_terms(self) -> dict[str, float]:
        """Return the terms that fall due with the ending; none where the episode was lost."""
        episode = self.episode
        trajectory = episode.trajectory("environment")
        accuracy = self.accuracy_of(episode.task)
        if needs_evidence(trajectory, group_accuracy=accuracy, reward=self.preset):
            trajectory = record_evidence(trajectory, episode.images, self.sandbox)
        if not trajectory.is_valid:
            episode.fail()
            return self._no_terms()
        terms = score_trajectory(trajectory, group_accuracy=accuracy, reward=self.preset)
        return {name: value or 0.0 for name, value in terms.items() if name != "tool_turn"}

    def _no_terms(self) -> dict[str, float]:
        return dict.fromkeys((*TERMS, *own_term_names(self.preset)), 0.0)

    def _info(self, terms: dict[str, float]) -> dict[str, Any]:
        """Return what is known besides; no times, so that equal episodes have equal infos."""
        episode = self.episode
        execution = episode.turns[-1].execution if episode.turns else None
        return {
            "task_id": episode.task.id,
            "family": episode.task.family,
            "difficulty": episode.task.difficulty.value,
            "turn": len(episode.turns),
            "outcome": None if execution is None else execution.outcome.value,
            "ending": None if episode.ending is None else episode.ending.value,
            "is_success": terms["accuracy"] > 0.5,
            "is_valid": episode.ending is not Ending.INFRASTRUCTURE,
            "reward_terms": terms,
        }

    def _observation(self) -> Observation:
        messages = self.episode.messages
        if self._observe == "transcript":
            text = "\n\n".join(f"[{message.role}]\n{message.text}" for message in messages)
            images = [image for message in messages for image in message.images]
        else:
            newest = messages[-1]
            is_for_policy = newest.role == "user"
            text = newest.text if is_for_policy else ""
            images = newest.images if is_for_policy else ()
        return {"text": text, "images": tuple(picture_array(image) for image in images)}

    def _show(self) -> None:
        if self.render_mode == "human":
            self.render()

    def _close_episode(self) -> None:
        if self._episode is not None:
            self._episode.close()


def wrong_action(action: object) -> TypeError:
    """Return the error of an action that is no string."""
    return TypeError(f"an action is the policy's text, a str; got {type(action).__name__}")


def known_accuracy(task: Task) -> float:
    """Return mu outside a group: the pass rate that curation recorded, one half where unknown."""
    return 0.5 if task.pass_rate is None else task.pass_rate


def _require(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"unknown {name} {value!r}: one of {', '.join(map(str, allowed))}")
