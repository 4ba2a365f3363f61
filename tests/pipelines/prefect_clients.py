"""Prefect's clients in the process of the tests."""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager


@contextmanager
def leftovers_collected():
    """Close at the end what Prefect's clients left open.

    Before every flow run, `prefect.results` asks for the default storage with a client that it
    never closes: its socket would be collected within a later test, where a warning is an error.
    """
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
