"""Record of whether a block raised an error and handled it, so that none is hidden.

A mark is set by each handler of the block (``except``, ``with``, a ``finally`` that leaves), by an
error that ends a thread, a future, a coroutine or a finalizer, and by a string with handlers that
the block executes. It costs nothing where nothing is raised, and changes neither line numbers nor
tracebacks. A mark is no fault by itself: rewards ask whether the block had evidence as well.
"""

from __future__ import annotations

import ast
import concurrent.futures
import dis
import secrets
import sys
import threading
import warnings
from types import CodeType
from typing import Any, cast

from .places import BLOCK_PREFIX, STRING

_WORDS = ("try", "with", "async")  # of the statements that can handle an error
_LEAVES = (ast.Return, ast.Break, ast.Continue)
_HANDLERS = {"CHECK_EXC_MATCH", "CHECK_EG_MATCH", "WITH_EXCEPT_START"}
_HELD = ("<input>", "<console>", "<doctest ")  # strings whose errors `code` and `doctest` hold
_UNSEEN = {"sys.unraisablehook", "sys.excepthook"}


class _Marks(dict[int, bool]):
    """A dict that can be a constant of code, which has to be hashable."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class HandledErrors:
    """The mark of one session; each block begins without."""

    def __init__(self) -> None:
        self._marks = _Marks()
        token = secrets.token_hex(8)  # names of constants that no block holds by chance
        self._constants: dict[object, object] = {f"{token} 0": self._marks, f"{token} 1": Exception}
        self._inserter = _Inserter(*map(str, self._constants))
        self._block: CodeType | None = None

    @property
    def has_mark(self) -> bool:
        """Whether the current block handled an error."""
        return bool(self._marks)

    def begin(self) -> None:
        """Remove the mark of the block before."""
        self._marks.clear()

    def mark(self) -> None:
        """Record that an error was handled."""
        self._marks[0] = True

    def install(self) -> None:
        """Watch threads, futures, finalizers and executed strings of this process; once."""
        library: Any = threading
        future: Any = concurrent.futures.Future
        make_hook, set_exception = library._make_invoke_excepthook, future.set_exception

        def make_marking() -> Any:  # noqa: ANN401 - as the library's
            invoke = make_hook()
            return lambda thread: (self.mark(), invoke(thread))

        def set_marked(one: object, exception: BaseException | None) -> None:
            self.mark()
            set_exception(one, exception)

        library._make_invoke_excepthook = make_marking
        future.set_exception = set_marked
        sys.addaudithook(self._audit)

    def compiled(self, tree: ast.Module, filename: str, code: str) -> CodeType:
        """Compile a block, with a mark in each of its handlers.

        Args:
            tree: The block, or the part of it before its last expression; changed.
            filename: File name of its frames.
            code: Source code of the whole block.

        Raises:
            SyntaxError: The block is invalid.
        """
        self._block = self._compiled(tree, filename, code)
        return self._block

    def _compiled(self, tree: ast.Module, filename: str, code: str) -> CodeType:
        if not any(word in code for word in _WORDS):
            return compile(tree, filename, "exec", dont_inherit=True)
        count = len(tree.body)
        try:
            marked: ast.Module = self._inserter.visit(tree)
            return self._with_constants(compile(marked, filename, "exec", dont_inherit=True))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # given above
                tree = ast.parse(code, filename)
                del tree.body[count:]
                compiled = compile(tree, filename, "exec", dont_inherit=True)
            self.mark()  # valid, and nested too deeply for marks
            return compiled

    def _with_constants(self, code: CodeType) -> CodeType:
        """Replace the names of the constants by the constants, in functions too."""

        def constant(value: object) -> object:
            if isinstance(value, CodeType):
                return self._with_constants(value)
            return self._constants.get(value, value) if isinstance(value, str) else value

        return code.replace(co_consts=tuple(map(constant, code.co_consts)))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "exec":
            if arguments[0] is self._block:  # its handlers have marks
                return
            interpreter: Any = sys
            caller = interpreter._getframe(1).f_code.co_filename
            is_own = caller == STRING or caller.startswith(BLOCK_PREFIX)
            if _is_held(arguments[0]) or (is_own and _has_handlers(arguments[0])):
                self.mark()
        elif event in _UNSEEN:
            self.mark()


class _Inserter(ast.NodeTransformer):
    """Inserts ``MARKS[0] = True`` into each handler; a handler around what has none of its own.

    Args:
        marks: Name of the constant that is the marks.
        errors: Name of the constant that is the class of all errors.
    """

    def __init__(self, marks: str, errors: str) -> None:
        self._marks = marks
        self._errors = errors

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        """Mark as the first statement."""
        self.generic_visit(node)
        node.body.insert(0, self._mark(node))
        return node

    def visit_With(self, node: ast.With | ast.AsyncWith) -> ast.AST:
        """Mark what a context manager sees, and may handle."""
        self.generic_visit(node)
        node.body = [self._passing(node.body, node)]
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        """Mark what a context manager sees, and may handle."""
        return self.visit_With(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        """Mark what ends a coroutine: its task holds it, and may never be asked."""
        self.generic_visit(node)
        start = 1 if ast.get_docstring(node, clean=False) is not None else 0
        if node.body[start:]:
            node.body[start:] = [self._passing(node.body[start:], node)]
        return node

    def visit_Try(self, node: ast.Try) -> ast.AST:
        """Mark what a ``finally`` that returns, breaks or continues discards."""
        return self._visit_try(node)

    def visit_TryStar(self, node: ast.AST) -> ast.AST:
        """Mark what a ``finally`` that returns, breaks or continues discards."""
        return self._visit_try(cast(ast.Try, node))

    def _visit_try(self, node: ast.Try) -> ast.AST:
        self.generic_visit(node)
        if not any(isinstance(one, _LEAVES) for last in node.finalbody for one in ast.walk(last)):
            return node
        final, node.finalbody = node.finalbody, []
        inner: list[ast.stmt] = [node] if node.handlers else [*node.body]
        outer = self._passing(inner, node)
        outer.finalbody = final
        return outer

    def _passing(self, body: list[ast.stmt], at: ast.stmt) -> ast.Try:
        """Return the statements in a handler that marks an error and lets it pass."""
        kind = ast.copy_location(ast.Constant(self._errors), at)
        again = ast.copy_location(ast.Raise(exc=None, cause=None), at)
        handler = ast.ExceptHandler(type=kind, name=None, body=[self._mark(at), again])
        handlers = [ast.copy_location(handler, at)]
        passing = ast.Try(body=body, handlers=handlers, orelse=[], finalbody=[])
        return ast.copy_location(passing, at)

    def _mark(self, at: ast.AST) -> ast.stmt:
        target = ast.Subscript(ast.Constant(self._marks), ast.Constant(0), ast.Store())
        mark = ast.Assign(targets=[target], value=ast.Constant(True))
        return ast.fix_missing_locations(ast.copy_location(cast(Any, mark), cast(Any, at)))


def _is_held(code: object) -> bool:
    return isinstance(code, CodeType) and code.co_filename.startswith(_HELD)


def _has_handlers(code: object) -> bool:
    """Whether a code object, or a function in it, holds a handler."""
    if not isinstance(code, CodeType):
        return False
    last = ""
    for step in dis.get_instructions(code):
        if step.opname in _HANDLERS or (last, step.opname) == ("PUSH_EXC_INFO", "POP_TOP"):
            return True
        last = step.opname
    return any(map(_has_handlers, code.co_consts))
