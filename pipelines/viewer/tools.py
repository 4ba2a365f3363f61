"""Tools used by a block of code: the libraries it imports and the operations it calls."""

from __future__ import annotations

import ast
import builtins
import warnings
from functools import lru_cache

LONGEST = 40
MOST = 24
_PLAIN = frozenset(dir(builtins)) | {"display"}
_PLUMBING = (
    frozenset(dir(str))
    | set(dir(list))
    | set(dir(dict))
    | {
        "all",
        "any",
        "astype",
        "max",
        "mean",
        "min",
        "nonzero",
        "reshape",
        "round",
        "sum",
        "tolist",
    }
)
"""Methods of arrays, lists and strings that every block calls and that identify no tool."""


@lru_cache(maxsize=8192)
def tools_used(code: str) -> frozenset[str]:
    """Return names such as ``numpy`` and ``crop()``; none for code that cannot be parsed.

    Python's own functions, plumbing such as ``append``, and what the block defines are left out.

    >>> sorted(tools_used("import numpy as np; print(input_image.crop((0, 0, 9, 9)).size)"))
    ['crop()', 'numpy']
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    names: set[str] = set()
    own: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(f"{node.name}()")
        elif isinstance(node, ast.Call):
            names.add(_called(node.func))
    kept = sorted(name for name in names - own - {""} if len(name) <= LONGEST)
    return frozenset(kept[:MOST])


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return "" if function.attr in _PLUMBING else f"{function.attr}()"
    if isinstance(function, ast.Name) and function.id not in _PLAIN:
        return f"{function.id}()"
    return ""
