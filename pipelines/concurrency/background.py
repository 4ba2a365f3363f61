"""Work that is repeated in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def repeated(call: Callable[[], object], *, every: float, name: str) -> Generator[None]:
    """Call a function again and again in a thread, while the context lasts.

    Args:
        call: The function; an exception that it raises ends the repetition.
        every: Seconds before each call.
        name: Name of the thread.
    """
    ending = threading.Event()

    def work() -> None:
        while not ending.wait(every):
            call()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
