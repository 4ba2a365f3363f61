"""The failure of a policy that could answer some conversations of a batch and not the others."""

from __future__ import annotations

from collections.abc import Sequence

from .interface import PolicyUnavailableError, Reply


class PartialRepliesError(PolicyUnavailableError):
    """Some conversations could not be answered; the others were.

    Attributes:
        replies: In order; None where the model could not be asked.
    """

    def __init__(self, message: str, replies: Sequence[Reply | None]) -> None:
        super().__init__(message)
        self.replies = list(replies)
