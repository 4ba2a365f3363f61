"""Join of the threads that a block has started, except idle threads of a pool."""

from __future__ import annotations

import sys
import threading
from typing import Any

_LOOK_SECONDS = 0.005
_LOOKS = 10  # a thread that has just received a task looks idle for an instant


def join(thread: threading.Thread) -> None:
    """Wait until a thread ends, or is an idle thread of a pool without tasks.

    When a program ends, Python ends the idle threads of a pool that was not shut down; a session
    continues, and so does its pool.
    """
    idle = 0
    while thread.is_alive() and idle < _LOOKS:
        thread.join(_LOOK_SECONDS)
        idle = idle + 1 if _waits_for_work(thread) else 0


def _waits_for_work(thread: threading.Thread) -> bool:
    """Return whether a thread belongs to a `ThreadPoolExecutor` and waits for a task."""
    pools: Any = sys.modules.get("concurrent.futures.thread")
    interpreter: Any = sys
    try:
        queue = pools._threads_queues.get(thread)
        frame = interpreter._current_frames().get(thread.ident)
        return queue.empty() and frame is not None and frame.f_code is pools._worker.__code__
    except AttributeError:  # not a pool's thread, or another version of the library
        return False
