"""Who caused the loss of a session: the machine, or the block that ran in it.

Code that could make our infrastructure fail would have an exit: such an episode is not scored. So a
block whose session was lost runs again in a worker of its own, which no other session shares, while
a control session runs in another. Where the first is lost again and the control lives, the block is
the cause.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from ..sandbox import Execution, Outcome, SandboxError
from ..sandbox.types import Sandbox, SeparableSandbox, Session, SessionLostError, SessionState

LOST_TWICE = Execution(
    Outcome.KILLED, error="SessionKilled: the interpreter ended twice while it ran this block"
)
"""Result of a block that caused the loss of two sessions."""

_MARK = "import time\nmark = time.monotonic_ns()\nprint(mark)"
_SHOW_MARK = "print(mark)"
_DYING_SECONDS = 0.1  # after which what killed one worker would have killed the other
_one_by_one = threading.Lock()  # a machine in trouble is not to start workers for every episode


def run_apart(
    sandbox: SeparableSandbox, code: str, open_session: Callable[[Sandbox], Session]
) -> tuple[Execution, SessionState]:
    """Run a block whose session was lost again, apart from all other sessions.

    Args:
        sandbox: Sandbox in which the session was lost.
        code: The block.
        open_session: Opens a session in a sandbox, in the state before the block.

    Returns:
        The result (`LOST_TWICE` where the block is the cause), and the state after it.

    Raises:
        SandboxError: The sandbox failed again, and the block is not known to be the cause.
    """
    with (
        _one_by_one,
        sandbox.another() as own,
        sandbox.another() as other,
        other.session() as idle,
        open_session(own) as session,
    ):
        control = ControlSession(idle)
        try:
            execution = session.run(code)
        except SessionLostError:
            time.sleep(_DYING_SECONDS)
            if not control.has_survived():
                raise
            execution = LOST_TWICE
        return execution, session.snapshot()


class ControlSession:
    """A session that runs no code of a model, beside one that does.

    Its mark is a time, which no replay repeats: a process that was replaced counts as lost.

    Args:
        session: The session, open and unused.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._mark = self._run(_MARK)

    def has_survived(self) -> bool:
        """Whether its process is the one that it started with."""
        return self._mark is not None and self._run(_SHOW_MARK) == self._mark

    def _run(self, code: str) -> str | None:
        """Return what a block prints; None where it does not end well."""
        with contextlib.suppress(SandboxError):
            execution = self._session.run(code)
            return execution.stdout if execution.is_ok else None
        return None
