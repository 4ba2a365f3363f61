"""The setting that a policy was trained with: tool interface, system prompt, largest image."""

from __future__ import annotations

from ...envs.episode import Episode
from ...envs.parsing import Interface
from ...envs.picture import DEFAULT_MAX_PIXELS
from ...envs.types import Task
from ...sandbox.types import Sandbox
from ..interface import Policy


def trained_interface(policy: Policy) -> Interface:
    """Return the tool interface that a policy was trained with, ``code`` if it names none."""
    interface: Interface | None = getattr(policy, "interface", None)
    return interface or "code"


def open_episode(
    task: Task,
    sandbox: Sandbox,
    policy: Policy,
    *,
    interface: Interface | None = None,
    max_turns: int = 6,
    seed: int = 0,
) -> Episode:
    """Open an episode in the setting that the policy was trained in, where it names one.

    Args:
        task: Task of the episode.
        sandbox: Sandbox in which code runs.
        policy: Policy that will act; its ``interface``, ``system_prompt`` and ``max_pixels`` are
            used, if it has them.
        interface: Tool interface that replaces the policy's own.
        max_turns: Turns per episode.
        seed: Random seed of the sampling.
    """
    max_pixels: int | None = getattr(policy, "max_pixels", None)
    return Episode(
        task,
        sandbox,
        interface=interface or trained_interface(policy),
        max_turns=max_turns,
        system_prompt=getattr(policy, "system_prompt", None),
        seed=seed,
        max_pixels=DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels,
    )
