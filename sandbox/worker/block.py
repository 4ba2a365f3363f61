"""Runs one block of model code: compile, execute, time limits, last expression, one-line error."""

from __future__ import annotations

import ast
import signal
import sys
import threading
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from .showing import Gallery

_REPEAT_SECONDS = 0.1  # a block that swallows the time-out meets it again and again
_MESSAGE_CHARACTERS = 400
_OPENCV_OUT_OF_MEMORY = -4  # cv2.error.code


@dataclass(frozen=True)
class Verdict:
    """How a block ended: the outcome's word and the one-line error, None when it is ok."""

    outcome: str
    error: str | None = None


class TimeLimitReached(BaseException):
    """Raised in the block when its time is up; no ``except Exception`` sees it."""


class Stopwatch:
    """Raises `TimeLimitReached` in the running block when wall or processor time is used up."""

    def __init__(self, wall_seconds: float, cpu_seconds: float) -> None:
        self._wall = wall_seconds
        self._cpu = cpu_seconds
        self._is_running = False
        self.verdict: str | None = None  # what limit was passed, once one was

    def start(self) -> None:
        """Undo what earlier code did to the signals and begin to count."""
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGALRM, self._on_wall)
        signal.signal(signal.SIGPROF, self._on_cpu)
        self._is_running = True
        signal.setitimer(signal.ITIMER_REAL, self._wall, _REPEAT_SECONDS)
        signal.setitimer(signal.ITIMER_PROF, self._cpu, _REPEAT_SECONDS)

    def stop(self) -> None:
        """Stop counting; timers that the block set itself end here too."""
        self._is_running = False
        for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF, signal.ITIMER_VIRTUAL):
            signal.setitimer(timer, 0.0)

    def _on_wall(self, *_: int | FrameType | None) -> None:
        self._strike(f"the block ran longer than {self._wall:g} s")

    def _on_cpu(self, *_: int | FrameType | None) -> None:
        self._strike(f"the block used more than {self._cpu:g} s of processor time")

    def _strike(self, verdict: str) -> None:
        if self._is_running:
            self.verdict = verdict
            raise TimeLimitReached(verdict)


def run_block(
    code: str, filename: str, namespace: dict[str, Any], gallery: Gallery, watch: Stopwatch
) -> Verdict:
    """Run ``code`` in ``namespace``; never raises for anything that the code does."""
    verdict = _run(code, filename, namespace, gallery, watch)
    if watch.verdict is None or verdict.outcome == "timeout":
        return verdict
    return Verdict("timeout", f"TimeoutError: {watch.verdict}")  # it had swallowed the time-out


def _run(
    code: str, filename: str, namespace: dict[str, Any], gallery: Gallery, watch: Stopwatch
) -> Verdict:
    try:
        try:
            watch.start()
            _execute(code, filename, namespace, gallery)
            return Verdict("ok")
        except SystemExit as stop:
            gallery.show_figures()
            return _leave(stop)
        except TimeLimitReached:
            raise
        except BaseException as error:  # noqa: BLE001 - model code may raise anything
            return _judge(error, filename)
        finally:
            watch.stop()
    except TimeLimitReached as limit:
        watch.stop()
        return Verdict("timeout", _sentence("TimeoutError", str(limit), _line_of(limit, filename)))
    except BaseException:  # noqa: BLE001 - an exception whose own text raises
        watch.stop()
        return Verdict("error", "Exception: the error could not be described")


def _execute(code: str, filename: str, namespace: dict[str, Any], gallery: Gallery) -> None:
    tree = ast.parse(code, filename)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, filename, "exec", dont_inherit=True), namespace)
    if isinstance(last, ast.Expr):
        expression = ast.Expression(last.value)
        value = eval(compile(expression, filename, "eval", dont_inherit=True), namespace)
        gallery.show_result(value)
    gallery.show_figures()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()


def _leave(stop: SystemExit) -> Verdict:
    """Treat ``exit()`` as the end of the block; its message, if any, goes to standard error."""
    if stop.code is not None and not isinstance(stop.code, int):
        sys.stderr.write(f"{stop.code}\n")
    return Verdict("ok")


def _judge(error: BaseException, filename: str) -> Verdict:
    is_memory = isinstance(error, MemoryError) or (
        type(error).__module__ == "cv2" and getattr(error, "code", 0) == _OPENCV_OUT_OF_MEMORY
    )
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    sentence = _sentence(type(error).__name__, message, _line_of(error, filename))
    return Verdict("memory" if is_memory else "error", sentence)


def _sentence(kind: str, message: str, line: int | None) -> str:
    words = " ".join(f"{kind}: {message}".split()).removesuffix(":")
    printable = words.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(printable) > _MESSAGE_CHARACTERS:
        printable = printable[:_MESSAGE_CHARACTERS] + "…"
    return printable if line is None else f"{printable}, line {line}"


def _line_of(error: BaseException, filename: str) -> int | None:
    """Find the deepest line of this very block that the error passed through."""
    if isinstance(error, SyntaxError) and error.filename == filename:
        return error.lineno
    line: int | None = None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
