"""The Gymnasium environment: questions about images, answered by writing text and code.

The reward is given per step: the cost of a failed block at its own step, all other terms at the end
of the episode. Outside a group mu is the task's own pass rate (one half where unknown), so that the
same seed and the same actions lead to the same rewards in any order of episodes.
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
from .rewards.terms import TERMS, hidden_charge, needs_evidence, score_trajectory
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
    """State of an environment, from which it can be resumed any number of times.

    Attributes:
        task: Task of the episode, including its answer; not to be shown to a policy.
        episode: Turns, ending and session.
        random_state: State of the environment's generator, which draws later tasks.
    """

    task: Task
    episode: EpisodeState
    random_state: Mapping[str, Any]


class VisualCodeEnv(gymnasium.Env[Observation, str]):
    """One question about images per episode, answered by writing text and code.

    Action space:
        `AnyText`: the policy's text, any string of at most 10,000,000 characters. It holds the
        answer between ``<answer>`` and ``</answer>``, or a request to the interface's tool: a
        Python block (``code``) or the box of a crop (``box``).

    Observation space:
        `gymnasium.spaces.Dict` of ``text`` (`AnyText`) and ``images`` (a
        `gymnasium.spaces.Sequence` of RGB arrays ``(H, W, 3)``, uint8, of any size). With
        ``observe="newest"`` both are the newest message to the policy: the question, then the
        output of each block; both are empty once the episode has ended. With ``"transcript"`` they
        are all messages so far, each headed by its role.

    Rewards:
        Sum of the terms in ``info["reward_terms"]``. ``tool_turn`` falls due at its own step: a
        failed block costs the preset's ``turn_weight * penalty``. At the end of the episode follow
        ``accuracy`` (1.0 or 0.0), ``format`` (the preset's ``format_fault`` for a fault of form),
        ``tool_sequence`` (by the preset) and the user's own terms. The last step of an episode that
        the infrastructure lost has the reward 0.0.

    Starting state:
        `reset` draws a task of the suite, uniformly, and the seed of the episode; the option
        ``task_id`` or ``task`` selects the task instead. The session opens at the first block.

    Episode end:
        - Termination: the text holds an answer (``answered``), neither an answer nor a valid tool
          request (``malformed``), or a tool request in the last of ``max_turns`` turns, which is
          not run (``turn_limit``).
        - Truncation: the sandbox failed twice (``infrastructure``); ``info["is_valid"]`` is False.

        ``info["ending"]`` is the reason.

    Args:
        suite: Name or path for `load_suite`, or a suite.
        split: Split of the suite, ``train`` or ``test``.
        families: Families of the suite to use, alternating; None for all.
        interface: Tool of the policy: ``code``, ``box`` or ``text`` (none).
        reward: Reward preset or its name.
        reward_terms: Additional own terms with their weights (`with_terms`).
        max_turns: Maximum number of turns; the reply before the last one asks for the answer.
        sandbox: Backend, whose sandbox the environments of a process share, or an open sandbox.
        limits: Limits of each session; None for the defaults. An open sandbox has its own.
        observe: Content of an observation: ``newest`` message or ``transcript`` so far.
        max_pixels: Maximum number of pixels per image; larger ones are downscaled, for policy and
            code alike.
        system_prompt: First message of the transcript; None for the interface's own.
        render_mode: ``ansi``, ``rgb_array`` or ``human`` (prints each turn); None for no rendering.

    Raises:
        ValueError: The suite, split, interface, preset, term, backend or mode is unknown.
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
        """The current episode, or the one that ended last.

        Raises:
            ResetNeeded: No episode was started.
        """
        if self._episode is None:
            raise ResetNeeded("call reset() first: no episode was begun")
        return self._episode

    @property
    def has_begun(self) -> bool:
        """Whether an episode was started."""
        return self._episode is not None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode on a task drawn from the suite.

        Args:
            seed: Random seed of the task selection. The random sources of code are seeded alike in
                every episode, so that they reveal nothing of the task.
            options: ``{"task_id": …}`` or ``{"task": Task}`` to select the task.

        Raises:
            ValueError: The option or the task is unknown.
            SandboxUnavailableError: This machine cannot run the backend; the message says why.
        """
        if self._runs_code and isinstance(self.sandbox, SharedSandbox):
            self.sandbox.require()
        super().reset(seed=seed)
        index = int(self.np_random.integers(len(self.suite)))
        episode_seed = int(self.np_random.integers(2**31))
        self._close_episode()
        task = self._picked(options or {})
        self._episode = self._new_episode(
            self.suite[index] if task is None else task, seed=episode_seed
        )
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._info(self._no_terms())

    def step(self, action: str) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Execute the policy's text; return observation, reward, termination, truncation and info.

        Raises:
            ResetNeeded: No episode is running.
            TypeError: The action is not a string; the episode is unchanged.
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
            terms |= self._final_terms(terms["tool_turn"])
        if self.render_mode == "human":
            self.render()
        is_lost = self.episode.ending is Ending.INFRASTRUCTURE
        is_over = self.episode.ending is not None and not is_lost
        return self._observation(), sum(terms.values()), is_over, is_lost, self._info(terms)

    def trajectory(self, policy_id: str = "unknown") -> Trajectory:
        """Return the finished episode as a trajectory, for stores and group rewards.

        Raises:
            RuntimeError: The episode has not ended.
        """
        return self.episode.trajectory(policy_id)

    def clone_state(self) -> EnvState:
        """Return the state of the environment; a session restored from it is replayed."""
        state = deepcopy(self.np_random.bit_generator.state)
        return EnvState(self.episode.task, self.episode.snapshot(), cast(dict[str, Any], state))

    def restore_state(self, state: EnvState) -> None:
        """Resume from ``state``, returned by an environment with the same settings."""
        self._close_episode()
        self.np_random.bit_generator.state = deepcopy(dict(state.random_state))
        self._episode = self._new_episode(state.task, seed=state.episode.seed)
        self._episode.resume(state.episode)

    def render(self) -> str | NDArray[np.uint8] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Render the newest turn as text, as an image ``(H, W, 3)``, or printed (``human``)."""
        if self.render_mode is None:
            gymnasium.logger.warn(f"pass render_mode to gym.make, one of {', '.join(RENDER_MODES)}")
            return None
        if self.render_mode == "rgb_array":
            return turn_picture(self.episode)
        text = turn_text(self.episode)
        if self.render_mode == "ansi":
            return text
        sys.stdout.write(text + "\n")
        return None

    def close(self) -> None:
        """End the episode's session and release the shared sandbox."""
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

    def _final_terms(self, last_turn: float) -> dict[str, float]:
        """Return the terms due at the end of the episode; all 0.0 where it was lost.

        A failed turn was charged at its own step; one that hides a failure is charged now, since
        only the replays of the whole episode show that it has no evidence.

        Args:
            last_turn: Charge of the last turn itself.
        """
        episode = self.episode
        trajectory = episode.trajectory("environment")
        accuracy = self.accuracy_of(episode.task)
        if needs_evidence(trajectory, group_accuracy=accuracy, reward=self.preset):
            trajectory = record_evidence(trajectory, episode.images, self.sandbox)
        if not trajectory.is_valid:
            episode.fail()
            return self._no_terms()
        terms = score_trajectory(trajectory, group_accuracy=accuracy, reward=self.preset)
        found = {name: value or 0.0 for name, value in terms.items()}
        return found | {"tool_turn": hidden_charge(trajectory, self.preset) + last_turn}

    def _no_terms(self) -> dict[str, float]:
        return dict.fromkeys((*TERMS, *own_term_names(self.preset)), 0.0)

    def _info(self, terms: dict[str, float]) -> dict[str, Any]:
        """Return the info of a step; without times, so that equal episodes have equal infos."""
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
        else:
            messages = [one for one in messages[-1:] if one.role == "user"]  # for the policy
            text = "".join(message.text for message in messages)
        images = [image for message in messages for image in message.images]
        return {"text": text, "images": tuple(picture_array(image) for image in images)}

    def _close_episode(self) -> None:
        if self._episode is not None:
            self._episode.close()


def wrong_action(action: object) -> TypeError:
    """Return the error for an action that is not a string."""
    return TypeError(f"an action is the policy's text, a str; got {type(action).__name__}")


def known_accuracy(task: Task) -> float:
    """Return mu outside a group: the pass rate from curation, one half where unknown."""
    return 0.5 if task.pass_rate is None else task.pass_rate


def _require(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"unknown {name} {value!r}: one of {', '.join(map(str, allowed))}")
