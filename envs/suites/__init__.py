"""Where tasks come from: the embedded suite, a user's own families, files of tasks, data sets."""

from .base import SuiteError

__all__ = ["SuiteError"]
