"""The failure of a policy that could answer some conversations of a batch and not the others."""

from __future__ import annotations

from collections.abc import Sequence

from ..interface import PolicyUnavailableError, Reply


class PartialRepliesError(PolicyUnavailableError):
    """Some conversations could not be answered; the others were.

    Attributes:
        replies: In order; None where the model could not be asked.
        errors: In order; why it could not be asked, None where it was.
    """

    def __init__(
        self,
        message: str,
        replies: Sequence[Reply | None],
        errors: Sequence[PolicyUnavailableError | None] = (),
    ) -> None:
        super().__init__(message)
        self.replies = list(replies)
        self.errors = list(errors) or [None if reply is not None else self for reply in replies]
