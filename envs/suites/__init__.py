"""Where tasks come from: the embedded suite, a user's own families, files of tasks, data sets."""

from .base import SPLITS, Split, Suite, SuiteError
from .generated import Item, register_family
from .loading import known_suites, load_suite
from .reading import read_tasks

__all__ = [
    "SPLITS",
    "Item",
    "Split",
    "Suite",
    "SuiteError",
    "known_suites",
    "load_suite",
    "read_tasks",
    "register_family",
]
