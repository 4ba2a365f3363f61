"""Episodes for the rollout loop of another trainer.

`EpisodeHost` opens an episode of a task, `Episode.step` and `Episode.cut` process the policy's
text, and `EpisodeHost.finish` returns the trajectory with the evidence that `score_group` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..sandbox.shared import SharedSandbox
from ..sandbox.types import Sandbox
from .episode import Episode
from .parsing import Interface
from .picture import DEFAULT_MAX_PIXELS
from .rewards.evidence import record_evidence
from .rewards.terms import score_trajectory
from .suites.base import Split, Suite
from .suites.filtered import ChosenFamilies
from .suites.loading import load_suite
from .suites.reading import read_tasks
from .types import Task, Tokens, Trajectory

Record = dict[str, str | bool | dict[str, float] | list[bool] | list[bool | None]]
"""What another trainer keeps with an episode, as values of JSON (`episode_record`)."""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Settings of a host's episodes; names and defaults as in ``gym.make``.

    Attributes:
        suite: Name or path for `load_suite`.
        split: Split, ``train`` or ``test``.
        families: Families to use; None for all.
        interface: Tool of the policy: ``code``, ``box`` or ``text``.
        reward: Name of the preset by which a single trajectory is scored.
        max_turns: Maximum number of turns per episode.
        sandbox: Backend; the episodes of a process share one sandbox.
        system_prompt: System message; None for the interface's own, empty for none.
        max_pixels: Maximum number of pixels per image; larger ones are downscaled.
    """

    suite: str = "nano"
    split: Split = "train"
    families: tuple[str, ...] | None = None
    interface: Interface = "code"
    reward: str = "bat"
    max_turns: int = 6
    sandbox: str = "local"
    system_prompt: str | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS


def settings_from(values: Mapping[str, Any]) -> HostSettings:
    """Return the settings among the values of another trainer's configuration.

    Args:
        values: Values by name; those that are not settings are ignored. Families may be a list.
    """
    own = {one.name: values[one.name] for one in fields(HostSettings) if one.name in values}
    if own.get("families") is not None:
        own["families"] = tuple(own["families"])
    return HostSettings(**own)


class EpisodeHost:
    """Opens episodes by task id; thread-safe.

    Args:
        settings: Settings of every episode.
        sandbox: Open sandbox; None for the one shared in the process.

    Raises:
        ValueError: The suite, split, family or backend is unknown.
    """

    def __init__(self, settings: HostSettings, *, sandbox: Sandbox | None = None) -> None:
        whole = load_suite(settings.suite, split=settings.split)
        self.settings = settings
        self.suite: Suite = (
            whole if settings.families is None else ChosenFamilies(whole, settings.families)
        )
        self.sandbox: Sandbox = SharedSandbox(settings.sandbox) if sandbox is None else sandbox

    def tasks(self, count: int, *, start: int = 0) -> list[Task]:
        """Return ``count`` tasks in the suite's order, for the rows of a trainer's data set."""
        return read_tasks(self.suite, range(start, start + count))

    def open(self, task_id: str, *, seed: int) -> Episode:
        """Start an episode; the caller closes it.

        Raises:
            KeyError: The suite does not have the task.
            SandboxUnavailableError: This machine cannot run the backend; the message says why.
        """
        settings = self.settings
        if settings.interface != "text" and isinstance(self.sandbox, SharedSandbox):
            self.sandbox.require()
        return Episode(
            self.suite.task(task_id),
            self.sandbox,
            interface=settings.interface,
            max_turns=settings.max_turns,
            system_prompt=settings.system_prompt,
            seed=seed,
            max_pixels=settings.max_pixels,
        )

    def finish(self, episode: Episode, policy_id: str, tokens: Tokens | None = None) -> Trajectory:
        """Close a finished episode and return its trajectory with evidence recorded."""
        episode.close()
        trajectory = episode.trajectory(policy_id, tokens)
        return record_evidence(trajectory, episode.images, self.sandbox)

    def score(self, trajectory: Trajectory) -> dict[str, float] | None:
        """Return the reward terms of a single trajectory; None where it was not scored.

        μ is the task's own pass rate, one half where unknown, as in the Gymnasium environment.
        """
        accuracy = 0.5 if trajectory.pass_rate is None else trajectory.pass_rate
        terms = score_trajectory(trajectory, group_accuracy=accuracy, reward=self.settings.reward)
        given = {name: value for name, value in terms.items() if value is not None}
        return given if len(given) == len(terms) else None

    def close(self) -> None:
        """Release the sandbox."""
        self.sandbox.close()


def episode_record(trajectory: Trajectory, terms: dict[str, float] | None) -> Record:
    """Return what another trainer keeps with a finished episode, as values of JSON.

    ``is_valid`` is False for an episode lost to our infrastructure: leave it out of the loss and of
    the statistics. ``has_evidence`` and ``failed_turns`` have an entry for each turn.

    Args:
        trajectory: Finished episode.
        terms: Its reward terms (`EpisodeHost.score`); None where it was not scored.
    """
    return {
        "task_id": trajectory.task_id,
        "ending": trajectory.ending.value,
        "is_valid": terms is not None,
        "reward_terms": terms or {},
        "failed_turns": [turn.has_failed for turn in trajectory.turns],
        "has_evidence": [turn.has_evidence for turn in trajectory.turns],
    }
