"""Execution of one block of model code: time limits, last expression, one-line error."""

from __future__ import annotations

import ast
import contextlib
import sys
import threading
from dataclasses import dataclass
from typing import Any

from .errors import line_of, message_of, sentence, short_traceback
from .handled import HandledErrors
from .places import Places
from .showing import Gallery
from .stopwatch import Stopwatch, TimeLimitReached
from .threads import join

_reserve = [bytearray(4 << 20)]  # unused; freed when a block fails, to report the error
_OPENCV_OUT_OF_MEMORY = -4  # cv2.error.code


@dataclass(frozen=True)
class Verdict:
    """How a block ended.

    Attributes:
        outcome: Name of the outcome; ``handled`` where it is ok and the block handled an error.
        error: One-line error; None when the outcome is ok.
        traceback: Frames of the model's own code, where the error's line alone is insufficient.
    """

    outcome: str
    error: str | None = None
    traceback: str = ""


@dataclass(frozen=True)
class Block:
    """A block of code and its environment.

    Attributes:
        code: Source code.
        filename: File name of its frames.
        namespace: Global variables.
        memory_mb: Memory limit of the session; named in the error when it is reached.
        places: Classification of files as the model's, a library's or the worker's.
        handled: Record of the errors that the block handles.
    """

    code: str
    filename: str
    namespace: dict[str, Any]
    memory_mb: int
    places: Places
    handled: HandledErrors


def run_block(block: Block, gallery: Gallery, watch: Stopwatch) -> Verdict:
    """Run a block; never raises because of the code."""
    block.handled.begin()
    verdict = _run(block, gallery, watch)
    if watch.verdict is None or verdict.outcome == "timeout":
        return verdict
    return Verdict("timeout", f"TimeoutError: {watch.verdict}")  # the block swallowed the time-out


def out_of_memory(memory_mb: int, line: int | None = None) -> Verdict:
    """Return the verdict for exhausted memory."""
    _reserve.clear()
    return Verdict("memory", sentence("MemoryError", f"more than {memory_mb} MB", line))


def _run(block: Block, gallery: Gallery, watch: Stopwatch) -> Verdict:
    try:
        try:
            watch.start()
            _execute(block, gallery)
            return _ended(block)
        except SystemExit as stop:
            gallery.show_figures()
            return _leave(stop, block)
        except TimeLimitReached:
            raise
        except BaseException as error:  # noqa: BLE001 - model code may raise anything
            _reserve.clear()
            verdict = _judge(error, block)
            with contextlib.suppress(Exception):  # plotted before the failure
                gallery.show_figures()
            return verdict
        finally:
            watch.stop()
    except TimeLimitReached as limit:
        watch.stop()
        return Verdict(
            "timeout", sentence("TimeoutError", str(limit), line_of(limit, block.filename))
        )
    except MemoryError:
        watch.stop()
        return out_of_memory(block.memory_mb)
    except BaseException:  # noqa: BLE001 - an exception whose own text raises
        watch.stop()
        return Verdict("error", "Exception: the error could not be described")


def _execute(block: Block, gallery: Gallery) -> None:
    tree = ast.parse(block.code, block.filename)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    if tree.body or last is None:
        exec(block.handled.compiled(tree, block.filename, block.code), block.namespace)
    if isinstance(last, ast.Expr):
        expression = ast.Expression(last.value)
        compiled = compile(expression, block.filename, "eval", dont_inherit=True)
        gallery.show_result(eval(compiled, block.namespace))
    gallery.show_figures()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            join(thread)


def _ended(block: Block) -> Verdict:
    return Verdict("handled" if block.handled.has_mark else "ok")


def _leave(stop: SystemExit, block: Block) -> Verdict:
    """Treat ``exit()`` as the end of the block; its message, if any, goes to standard error."""
    if stop.code is not None and not isinstance(stop.code, int):
        sys.stderr.write(f"{stop.code}\n")
    return _ended(block)


def _judge(error: BaseException, block: Block) -> Verdict:
    message = block.places.without_folders(message_of(error))
    line = line_of(error, block.filename)
    if isinstance(error, MemoryError) and not message:
        return out_of_memory(block.memory_mb, line)
    is_memory = isinstance(error, MemoryError) or (
        type(error).__module__ == "cv2" and getattr(error, "code", 0) == _OPENCV_OUT_OF_MEMORY
    )
    return Verdict(
        "memory" if is_memory else "error",
        sentence(type(error).__name__, message, line),
        short_traceback(error, block.filename, block.places),
    )
