"""Where in a file of the user's an error came from."""

from __future__ import annotations

from pathlib import Path


def line_in(path: Path, error: BaseException) -> str:
    """Return the file's own line that an error went through, as ``, line 3``; empty for none."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    line, frame = "", error.__traceback__
    while frame is not None:
        if Path(frame.tb_frame.f_code.co_filename) == path:
            line = f", line {frame.tb_lineno}"
        frame = frame.tb_next
    return line
