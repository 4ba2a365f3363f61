"""Location of an error in a user's file."""

from __future__ import annotations

from pathlib import Path


def line_in(path: Path, error: BaseException) -> str:
    """Return the deepest line of the file in an error's traceback, as ``, line 3``; else empty."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    line, frame = "", error.__traceback__
    while frame is not None:
        if Path(frame.tb_frame.f_code.co_filename) == path:
            line = f", line {frame.tb_lineno}"
        frame = frame.tb_next
    return line
