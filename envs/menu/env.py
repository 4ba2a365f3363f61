"""A fixed-shape view of `VisualCodeEnv`, for algorithms that need boxes and numbers (SB3).

The same tasks, sandbox, grader and reward; only what is seen and said has another form. An action
is a line of the menu with its arguments (`menu_programs.MENU`), turned into the text that a policy
would write; an observation is a dictionary of boxes (`menu_view`).
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
    """Questions about pictures, answered by choosing from a menu of code actions.

    Args:
        suite: As of `VisualCodeEnv`.
        split: As of `VisualCodeEnv`.
        side: Of both observed pictures, pixels.
        words: Components of the two bags of words.
        grid: Cells a row and a column, for the entries that crop one.
        entries: Names of the lines of the menu (`menu_programs.MENU`) that there are; None for all.
        settings: The other arguments of `VisualCodeEnv`, but for ``interface`` and ``observe``.

    Raises:
        ValueError: A size below 1, an unknown entry, or what `VisualCodeEnv` refuses.
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
        """The episode that goes on, or ended last."""
        return self.visual_code.episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[View, dict[str, Any]]:
        """Begin an episode; as of `VisualCodeEnv`."""
        super().reset(seed=seed)
        _, info = self.visual_code.reset(seed=seed, options=options)
        return self._view(), info

    def step(self, action: NDArray[np.int64]) -> tuple[View, float, bool, bool, dict[str, Any]]:
        """Write the text that an action stands for; rewards and infos are `VisualCodeEnv`'s.

        Raises:
            ResetNeeded: No episode goes on.
            ValueError: The action is not of the action space.
        """
        _, reward, terminated, truncated, info = self.visual_code.step(self.text_of(action))
        return self._view(), reward, terminated, truncated, info

    def text_of(self, action: NDArray[np.int64]) -> str:
        """Return the text that an action stands for in the episode as it is.

        Raises:
            ValueError: The action is not of the action space.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is no action of {self.action_space}")
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
        """Return where the environment stands."""
        return self.visual_code.clone_state()

    def restore_state(self, state: EnvState) -> None:
        """Go on from ``state``, which an environment with the same settings gave."""
        self.visual_code.restore_state(state)

    def render(self) -> Any:  # noqa: ANN401 - by the mode
        """Show the newest turn as `VisualCodeEnv` does."""
        return self.visual_code.render()

    def close(self) -> None:
        """End the episode's session and let go of the shared sandbox."""
        self.visual_code.close()

    def _view(self) -> View:
        return view_of(self.episode, side=self._side, words=self._words)
