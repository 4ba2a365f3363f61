"""A fixed-shape view of `VisualCodeEnv`, for algorithms that need boxes and numbers (SB3).

Tasks, sandbox, grader and reward are the same; only observations and actions have another form. An
action is an entry of the menu with its arguments (`programs.MENU`), converted to the text that a
policy would write; an observation is a dictionary of boxes (`view`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..episode import Episode
from ..types import Trajectory
from ..visual_code import EnvState, VisualCodeEnv
from .programs import chosen_entries, menu_sizes, menu_text
from .view import View, view_of, view_space


class VisualCodeMenuEnv(gymnasium.Env[View, NDArray[np.int64]]):
    """Questions about images, answered by choosing from a menu of code actions.

    Action space:
        `gymnasium.spaces.MultiDiscrete` of entry, colour, cell and number; ``[11, 5, 16, 101]`` by
        default. Each entry reads at most one of the arguments; an argument that no entry reads has
        one value. The entries are those of `programs.MENU`: code or an answer.

    Observation space:
        `gymnasium.spaces.Dict` of boxes. ``image`` (the question's first image) and ``tool_image``
        (the newest image shown by code): ``(side, side, 3)``, uint8. ``question`` and ``output``
        (of the newest code): bags of words ``(words,)``, float32, 0 or 1. ``figures``: ``(7,)``,
        float32, from 0 to 1 (`view.FIGURES`).

    Rewards:
        As in `VisualCodeEnv`.

    Starting state:
        As in `VisualCodeEnv`; ``tool_image`` is black and ``output`` all zeros.

    Episode end:
        - Termination: an entry with an answer, or an entry with code in the last turn, which is
          not run.
        - Truncation: the sandbox failed twice, as in `VisualCodeEnv`.

    Args:
        suite: Suite, as in `VisualCodeEnv`.
        split: Split, as in `VisualCodeEnv`.
        side: Side length of both observed images, in pixels.
        words: Number of components of each bag of words.
        grid: Number of cells per row and per column, for the entries that crop a cell.
        entries: Names of the entries of the menu (`programs.MENU`); None for all.
        settings: Other arguments of `VisualCodeEnv`, except ``interface`` and ``observe``.

    Raises:
        ValueError: A size is below 1, an entry is unknown, or `VisualCodeEnv` refuses an argument.
    """

    metadata = VisualCodeEnv.metadata

    def __init__(
        self,
        suite: Any = "nano",  # noqa: ANN401 - passed on
        split: Any = "train",  # noqa: ANN401 - passed on
        *,
        side: int = 64,
        words: int = 256,
        grid: int = 4,
        entries: Sequence[str] | None = None,
        **settings: Any,  # noqa: ANN401 - passed on
    ) -> None:
        for name, value in (("side", side), ("words", words), ("grid", grid)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("interface", "observe"):
            if name in settings:
                raise ValueError(f"the menu has no {name!r}: it writes code and sees a fixed view")
        self.entries = chosen_entries(entries)
        self.visual_code = VisualCodeEnv(suite, split, **settings)
        self.render_mode = self.visual_code.render_mode
        self.observation_space = cast(gymnasium.Space[View], view_space(side, words))
        self.action_space = gymnasium.spaces.MultiDiscrete(list(menu_sizes(grid, self.entries)))
        self._side = side
        self._words = words
        self._grid = grid

    @property
    def episode(self) -> Episode:
        """The current episode, or the one that ended last."""
        return self.visual_code.episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[View, dict[str, Any]]:
        """Start an episode, as `VisualCodeEnv.reset` does."""
        super().reset(seed=seed)
        _, info = self.visual_code.reset(seed=seed, options=options)
        return self._view(), info

    def step(self, action: NDArray[np.int64]) -> tuple[View, float, bool, bool, dict[str, Any]]:
        """Execute the text of an action; rewards and infos are those of `VisualCodeEnv`.

        Raises:
            ResetNeeded: No episode is running.
            ValueError: The action is not in the action space.
        """
        _, reward, terminated, truncated, info = self.visual_code.step(self.text_of(action))
        return self._view(), reward, terminated, truncated, info

    def text_of(self, action: NDArray[np.int64]) -> str:
        """Return the text of an action in the current episode.

        Raises:
            ValueError: The action is not in the action space.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not an action of {self.action_space}")
        ran = [turn.execution.stdout for turn in self.episode.turns if turn.execution]
        return menu_text(
            [int(value) for value in action],
            grid=self._grid,
            printed=ran[-1] if ran else "",
            choices=self.episode.task.choices,
            entries=self.entries,
        )

    def trajectory(self, policy_id: str = "unknown") -> Trajectory:
        """Return the finished episode as a trajectory."""
        return self.visual_code.trajectory(policy_id)

    def clone_state(self) -> EnvState:
        """Return the state of the environment."""
        return self.visual_code.clone_state()

    def restore_state(self, state: EnvState) -> None:
        """Resume from ``state``, returned by an environment with the same settings."""
        self.visual_code.restore_state(state)

    def render(self) -> Any:  # noqa: ANN401 - depends on the mode
        """Render the newest turn as `VisualCodeEnv` does."""
        return self.visual_code.render()

    def close(self) -> None:
        """End the episode's session and release the shared sandbox."""
        self.visual_code.close()

    def _view(self) -> View:
        return view_of(self.episode, side=self._side, words=self._words)
