"""Error of a policy that replied to some conversations of a batch and not to the others."""

from __future__ import annotations

from collections.abc import Sequence

from ..interface import PolicyUnavailableError, Reply


class PartialRepliesError(PolicyUnavailableError):
    """Some conversations of a batch have no reply.

    Attributes:
        replies: Replies in order; None where the request failed.
        errors: Errors in order; None where there is a reply.
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
