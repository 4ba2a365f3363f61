"""Description of an error for the model: one line, and the lines of the model's own code."""

from __future__ import annotations

import linecache
import os
from collections.abc import Iterator
from types import TracebackType

from .kept_text import printable, shortened
from .places import BLOCK_PREFIX, STRING, Places

_MESSAGE_CHARACTERS = 400
_LINE_CHARACTERS = 120
_FRAMES_FIRST, _FRAMES_LAST = 3, 5
_MOST_ERRORS = 3  # of a chain


def sentence(kind: str, message: str, line: int | None) -> str:
    """Return the one bounded line that names an error and where it happened."""
    words = " ".join(f"{kind}: {message}".split()).removesuffix(":")
    text = shortened(printable(words), _MESSAGE_CHARACTERS)
    return text if line is None else f"{text}, line {line}"


def message_of(error: BaseException) -> str:
    """Return the error's message; a syntax error's without its location, which is separate."""
    return error.msg if isinstance(error, SyntaxError) else str(error)


def line_of(error: BaseException, filename: str) -> int | None:
    """Return the deepest line of this block in the error's traceback; None without one."""
    if isinstance(error, SyntaxError) and error.filename == filename:
        return error.lineno
    line: int | None = None
    for name, number, _ in _steps(error.__traceback__):
        if name == filename:
            line = number
    return line


def short_traceback(error: BaseException, filename: str, places: Places) -> str:
    """Return the model's own frames, the newest last; empty where the one line suffices."""
    chain = list(_chain(error))
    parts = [_frames(each, filename, places) for each in chain]
    if (len(chain) == 1 and len(parts[0]) < 2) or not any(parts):
        return ""
    lines = ["Traceback (your own code):"]
    for position, (each, frames) in enumerate(zip(chain, parts, strict=True)):
        lines += _shortened(frames)
        if position < len(chain) - 1:
            lines += [sentence(type(each).__name__, message_of(each), None), "and then:"]
    return printable("\n".join(lines)) + "\n"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return the errors that led to this one, the first cause first."""
    chain = [error]
    while len(chain) < _MOST_ERRORS:
        last = chain[-1]
        before = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if before is None or before in chain:
            break
        chain.append(before)
    return reversed(chain)


def _frames(error: BaseException, filename: str, places: Places) -> list[str]:
    frames: list[str] = []
    own: dict[str, bool] = {}
    place: tuple[str, int] | None = None
    for name, number, function in _steps(error.__traceback__):
        is_inner_part = function.startswith("<") and place == (name, number)  # of a comprehension
        if name not in own:
            own[name] = places.is_model_code(name)
        if own[name] and not is_inner_part:
            frames.append(_frame(name, number, function, filename))
            place = name, number
    return frames


def _frame(name: str, number: int, function: str, filename: str) -> str:
    if name == filename:
        place = f"line {number}"
    elif name.startswith(BLOCK_PREFIX):
        place = f"an earlier block, line {number}"
    elif name == STRING:
        place = f"a string, line {number}"
    else:
        place = f"{os.path.basename(name)}, line {number}"
    if not function.startswith("<"):
        place += f", in {function}"
    source = linecache.getline(name, number).strip()
    if len(source) > _LINE_CHARACTERS:
        source = source[:_LINE_CHARACTERS] + "…"
    return f"  {place}: {source}" if source else f"  {place}"


def _shortened(frames: list[str]) -> list[str]:
    left_out = len(frames) - _FRAMES_FIRST - _FRAMES_LAST
    if left_out < 2:
        return frames
    note = f"  [{left_out} more frames]"
    return [*frames[:_FRAMES_FIRST], note, *frames[-_FRAMES_LAST:]]


def _steps(trace: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    """Yield file, line and function of each frame, the outermost first."""
    while trace is not None:
        code = trace.tb_frame.f_code
        yield code.co_filename, trace.tb_lineno, code.co_name
        trace = trace.tb_next
