"""Sources of tasks: the embedded suite, a user's own families, task files, data sets."""

from .base import SuiteError

__all__ = ["SuiteError"]
