"""Exit codes, shared by all commands."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import typer

FINDINGS = 1
USAGE = 2
FAILED = 3
INTERRUPTED = 130
UNREAD = 141

MEANINGS = {
    0: "done",
    FINDINGS: "done, with findings: a check failed, a reward hack pays, a model returned no "
    "answer, a few episodes were lost (the same command reruns them)",
    USAGE: "usage error: an option, preset, suite, run or file is wrong or missing",
    FAILED: "failed: the sandbox, the disk, a server (most episodes were lost), or a bug in "
    "CodeDance",
    INTERRUPTED: "interrupted (Ctrl-C, SIGTERM): the same command resumes",
    UNREAD: "the reader of the output closed it, as `head` does",
}

_USAGE_ERRORS = ("StageError", "StoreUsageError", "UnknownRunError")
"""Errors by name, since importing them would import the database."""


def leave_incomplete(made: Mapping[str, object]) -> None:
    """Exit with `FINDINGS` if the result lacks episodes."""
    if made.get("is_complete") is False:
        raise typer.Exit(FINDINGS)


def code_of(error: BaseException) -> int:
    """Return the exit code for an error that no command caught."""
    if type(error).__name__ in ("Abort", "StageInterrupted", "KeyboardInterrupt"):
        return INTERRUPTED
    if type(error).__name__ in _USAGE_ERRORS or (is_ours(error) and isinstance(error, ValueError)):
        return USAGE
    return FAILED


def is_ours(error: BaseException) -> bool:
    """Whether the error is CodeDance's: its class, or the line that raised it."""
    if type(error).__module__.startswith("codedance."):
        return True
    frame: TracebackType | None = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    name = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    return str(name).startswith("codedance.")
