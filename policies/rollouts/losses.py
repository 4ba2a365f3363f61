"""Episodes lost to infrastructure: reasons, and the limit above which a rollout fails."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from ..interface import PolicyRefusedError, PolicyUnavailableError

_SHOWN_CHARACTERS = 400


class EpisodesLostError(PolicyUnavailableError):
    """All or most episodes were lost: figures of the rest would be meaningless."""


class EpisodesRefusedError(EpisodesLostError, PolicyRefusedError):
    """All or most episodes were lost because the server rejects every request; do not retry."""


class Losses:
    """Counter of lost episodes by reason; thread-safe.

    Args:
        also: Callback that is called with the same error.
    """

    def __init__(self, also: Callable[[Exception | None], None] | None = None) -> None:
        self._also = also
        self._reasons: Counter[str] = Counter()
        self._has_refusal = False
        self._lock = threading.Lock()

    def __call__(self, error: Exception | None) -> None:
        """Count one lost episode; None where the reason is unknown."""
        if self._also is not None:
            self._also(error)
        with self._lock:
            self._reasons[_one_line(str(error or "")) or "no reason was given"] += 1
            self._has_refusal = self._has_refusal or isinstance(error, PolicyRefusedError)

    @property
    def count(self) -> int:
        """Number of lost episodes."""
        return self._reasons.total()

    @property
    def reason(self) -> str:
        """Most common reason, in one line; empty where nothing was lost."""
        return self._reasons.most_common(1)[0][0] if self._reasons else ""

    def check(self, played: int, *, of: str = "episodes") -> None:
        """Raise an error where all or most of the episodes were lost.

        Raises:
            EpisodesLostError: Half or more were lost; the message holds the most common reason.
        """
        if is_too_many(self.count, played):
            raise self.error(f"{self.count} of {played} {of} were lost")

    def error(self, message: str) -> EpisodesLostError:
        """Return the error to raise: ``message``, then the most common reason."""
        kind = EpisodesRefusedError if self._has_refusal else EpisodesLostError
        return kind(f"{message}: {self.reason}" if self.reason else message)


def is_too_many(lost: int, count: int) -> bool:
    """Return whether all or most of ``count`` episodes were lost: half or more.

    >>> is_too_many(3, 10), is_too_many(5, 10), is_too_many(0, 0)
    (False, True, False)
    """
    return lost > 0 and 2 * lost >= count


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"
