"""Replies to several conversations at once, some of which can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..interface import AsyncPolicy, Conversation, PolicyUnavailableError, Reply, Sampling


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


def ask_each(
    policy: AsyncPolicy, conversations: Sequence[Conversation], sampling: Sampling
) -> list[Reply]:
    """Request the replies of several conversations at once, in an event loop of their own.

    Raises:
        PartialRepliesError: Some requests failed; the error holds the replies of the others.
    """
    from anyio.from_thread import start_blocking_portal

    async def ask_all() -> list[Reply | PolicyUnavailableError]:
        async with policy.connect(sampling=sampling) as source:

            async def ask(one: Conversation) -> Reply | PolicyUnavailableError:
                try:
                    return await source.reply(one)
                except PolicyUnavailableError as error:
                    return error

            return list(await asyncio.gather(*map(ask, conversations)))

    with start_blocking_portal() as portal:
        results = portal.call(ask_all)
    replies = [result if isinstance(result, Reply) else None for result in results]
    errors = [None if isinstance(result, Reply) else result for result in results]
    raise_if_partial(replies, errors)
    return [reply for reply in replies if reply is not None]


def raise_if_partial(
    replies: Sequence[Reply | None], errors: Sequence[PolicyUnavailableError | None]
) -> None:
    """Raise an error that counts the conversations without a reply, if there are any.

    Raises:
        PartialRepliesError: An error is not None.
    """
    reasons = [str(error) for error in errors if error is not None]
    if not reasons:
        return
    count = f"{len(reasons)} of {len(replies)} conversations got no reply: "
    raise PartialRepliesError((count if len(replies) > 1 else "") + reasons[0], replies, errors)
