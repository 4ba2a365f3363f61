"""Code usage of a trajectory: calls and techniques, read from syntax trees; nothing is run.

Names are resolved through imports, aliases and assignments over all blocks of a trajectory:
``from PIL import Image as I`` and ``c = input_image.crop(box)`` resolve to ``Image.crop``, and
``import cv2 as v; v.connectedComponents(m)`` to ``cv2.connectedComponents``. A method of an unknown
object is recorded by its name alone: ``.sum``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

IMAGE, ARRAY, CANVAS = "Image", "ndarray", "ImageDraw"

_KNOWN = {"input_image": IMAGE}
_IMAGE_MAKERS = frozenset(
    f"{IMAGE}.{name}"
    for name in (
        *("crop", "resize", "convert", "copy", "rotate", "transpose", "filter", "point"),
        *("reduce", "quantize", "transform", "open", "new", "fromarray", "blend", "composite"),
    )
)
_ARRAY_MAKERS = re.compile(
    r"numpy\.(array|asarray|zeros|ones|abs|full|where|diff|cumsum|stack|argwhere|arange|pad)"
    r"(_like)?|ndarray\.(astype|copy|reshape|sum|any|all|mean|transpose)|abs"
)
_SHORT = {"PIL.Image": IMAGE, "PIL.ImageDraw": CANVAS, "PIL.Image.Image": IMAGE}

TECHNIQUES: dict[str, re.Pattern[str]] = {
    "crop": re.compile(r"Image\.crop"),
    "zoom": re.compile(r"Image\.(resize|thumbnail|reduce)|cv2\.(resize|pyr\w+)"),
    "count": re.compile(
        r"cv2\.(connectedComponents\w*|findContours|HoughCircles)|scipy\.ndimage\.label"
        r"|skimage\.measure\.(label|regionprops)"
    ),
    "locate": re.compile(r"(numpy|ndarray)\.(nonzero|argwhere|argmax|argmin|where)|numpy\.where"),
    "mask": re.compile(r"cv2\.(inRange|threshold)|numpy\.logical_\w+|<mask>"),
    "measure": re.compile(r"(numpy|ndarray)\.(sum|any|mean|min|max|ptp|bincount)|\.(sum|any)"),
    "draw": re.compile(r"ImageDraw\.\w+|cv2\.(rectangle|circle|line|putText|ellipse|drawContours)"),
    "enhance": re.compile(
        r"PIL\.(ImageEnhance|ImageOps|ImageFilter)\..+|cv2\.\w*Blur|cv2\.equal\w+"
    ),
    "edges": re.compile(r"cv2\.(Canny|Sobel|Laplacian|HoughLines\w*)|skimage\.feature\.canny"),
    "plot": re.compile(r"matplotlib\..+"),
    "search": re.compile(r"<loop>|heapq\..+|networkx\..+|collections\.deque"),
    "pixel": re.compile(r"Image\.(getpixel|load|getdata|getcolors)"),
    "show": re.compile(r"display|<shown image>"),
    "compute": re.compile(r"sympy\..+|math\..+|statistics\..+"),
}
"""Techniques, with the calls, or constructs in angle brackets, that are instances of them."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Code usage of a trajectory.

    Attributes:
        calls: Dotted names of the called functions.
        techniques: Techniques per block.
    """

    calls: frozenset[str]
    techniques: tuple[frozenset[str], ...]

    @property
    def all_techniques(self) -> frozenset[str]:
        """Techniques of all blocks."""
        return frozenset[str]().union(*self.techniques)

    @property
    def compositions(self) -> frozenset[str]:
        """Pairs of techniques in one block (``locate + crop``), and in successive turns.

        The second kind reads ``crop, then count``.
        """
        together = {
            " + ".join(pair) for block in self.techniques for pair in combinations(sorted(block), 2)
        }
        orders = {
            f"{first}, then {second}"
            for before, after in combinations(self.techniques, 2)
            for first in before
            for second in after
        }
        return frozenset(together | orders)


def usage_of(blocks: Sequence[str]) -> Usage:
    """Return the usage of a trajectory's blocks, in order; a block that is not Python has none.

    >>> usage = usage_of(["c = input_image.crop((0, 0, 9, 9))", "print(c.getpixel((1, 1)))"])
    >>> sorted(usage.calls), sorted(usage.compositions)
    (['Image.crop', 'Image.getpixel', 'print'], ['crop, then pixel'])
    """
    names = dict(_KNOWN)
    calls: set[str] = set()
    techniques: list[frozenset[str]] = []
    for block in blocks:
        reader = _Reader(names)
        try:
            tree = ast.parse(block)
            reader.visit(tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            techniques.append(frozenset())
            continue
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr) and reader.kind_of(last.value) == IMAGE:
            reader.marks.add("<shown image>")
        calls |= reader.calls
        seen = reader.calls | reader.marks
        techniques.append(
            frozenset(
                technique
                for technique, pattern in TECHNIQUES.items()
                if any(pattern.fullmatch(name) for name in seen)
            )
        )
    return Usage(frozenset(calls), tuple(techniques))


class _Reader(ast.NodeVisitor):
    """Visitor of a block; ``names`` maps variables to kinds and is shared with the next block."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.calls: set[str] = set()
        self.marks: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        """Record the name that a module is imported as."""
        for one in node.names:
            if one.asname is not None:
                self.names[one.asname] = _short(one.name)
            else:
                self.names[one.name.split(".")[0]] = one.name.split(".")[0]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Record the target of an imported name."""
        for one in node.names:
            self.names[one.asname or one.name] = _short(f"{node.module}.{one.name}")

    def visit_Assign(self, node: ast.Assign) -> None:
        """Record the new kind of a variable."""
        self.generic_visit(node)
        kind = self.kind_of(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                if kind is None:
                    self.names.pop(target.id, None)
                else:
                    self.names[target.id] = kind

    def visit_For(self, node: ast.For) -> None:
        """Mark a loop."""
        self.marks.add("<loop>")
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        """Mark a loop."""
        self.marks.add("<loop>")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Mark a mask: an array compared with something."""
        if self.kind_of(node.left) == ARRAY:
            self.marks.add("<mask>")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Record a call."""
        name = self.name_of(node.func)
        if name is not None:
            self.calls.add(name)
        self.generic_visit(node)

    def name_of(self, node: ast.expr) -> str | None:
        """Return the dotted name of a called expression."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.kind_of(node.value)
            return _short(f"{owner}.{node.attr}") if owner is not None else f".{node.attr}"
        return None

    def kind_of(self, node: ast.expr) -> str | None:
        """Return the module, class or kind of an expression; None where it is unknown."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.kind_of(node.value)
            return None if owner in (None, IMAGE, ARRAY) else _short(f"{owner}.{node.attr}")
        if isinstance(node, ast.Call):
            return _result(self.name_of(node.func), [self.kind_of(one) for one in node.args])
        if isinstance(node, ast.BinOp):
            return self.kind_of(node.left) or self.kind_of(node.right)
        if isinstance(node, ast.Compare):
            return self.kind_of(node.left)
        if isinstance(node, ast.Subscript):
            return ARRAY if self.kind_of(node.value) == ARRAY else None
        return None


def _result(name: str | None, arguments: Sequence[str | None]) -> str | None:
    """Return the kind of a call's result."""
    if name is None:
        return None
    if name in _IMAGE_MAKERS:
        return IMAGE
    if name == f"{CANVAS}.Draw":
        return CANVAS
    if name == "abs":
        return arguments[0] if arguments else None
    return ARRAY if _ARRAY_MAKERS.fullmatch(name) else None


def _short(name: str) -> str:
    """Return the short form of a name: ``PIL.Image.Image.crop`` is ``Image.crop``."""
    for long, short in sorted(_SHORT.items(), key=lambda item: -len(item[0])):
        if name == long or name.startswith(f"{long}."):
            return short + name.removeprefix(long)
    return name
