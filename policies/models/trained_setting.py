"""Setting that a policy was trained in, as the notes of its model folder name it."""

from __future__ import annotations

from ...envs.parsing import Interface
from .model_folder import ModelNotes


class TrainedSetting:
    """Base of policies that know the notes of a model folder; episodes are opened accordingly.

    Args:
        policy_id: Name of model and weights.
        notes: Setting that it was trained in: system prompt, largest image, interface.
    """

    def __init__(self, policy_id: str, notes: ModelNotes | None = None) -> None:
        self.notes = notes or ModelNotes()
        self._id = policy_id

    @property
    def id(self) -> str:
        """Name of model and weights."""
        return self._id

    @property
    def system_prompt(self) -> str | None:
        """System prompt; None for the interface's own, empty for no system message."""
        return self.notes.system_prompt

    @property
    def max_pixels(self) -> int | None:
        """Largest image that it was trained on; None for the environment's own limit."""
        return self.notes.max_pixels

    @property
    def interface(self) -> Interface | None:
        """Tool interface that it was trained with; None where that is not known."""
        return self.notes.interface
