"""What a command's exit code says: the same over all commands."""

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
    FINDINGS: "done, and something wants a person: a check is not well, a cheat pays, a model gave "
    "no answer, a few episodes were lost (the same command plays them again)",
    USAGE: "not to be done as asked: an option, preset, suite, run or file is wrong or missing",
    FAILED: "failed: the sandbox, the disk, a server (most episodes were lost), or a mistake of "
    "ours",
    INTERRUPTED: "interrupted (Ctrl-C, SIGTERM): the same command goes on where it was",
    UNREAD: "whoever read the output closed it (`| head`)",
}

_USAGE_ERRORS = ("StageError", "StoreUsageError", "UnknownRunError")
"""Named, since importing them would import the database."""


def leave_incomplete(made: Mapping[str, object]) -> None:
    """End the command with `FINDINGS` where what it made lacks episodes."""
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
    """Whether we worded the error: it is a class of ours, or raised by a line of ours."""
    if type(error).__module__.startswith("codedance."):
        return True
    frame: TracebackType | None = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    name = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    return str(name).startswith("codedance.")
