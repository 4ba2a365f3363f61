"""Read a YAML file of the user's; whatever is wrong with its text is one error with the line.

Some valid YAML that is almost certainly a mistake is refused, too: a duplicate key, a key that is
not a string (``on:`` is true), infinity and NaN.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import yaml

_VALUE_ERRORS = (ValueError, OverflowError, TypeError, KeyError, AttributeError, IndexError)
MERGE = "tag:yaml.org,2002:merge"
Location = tuple[int | str, ...]


class SettingsError(ValueError):
    """flows.yaml (or a preset's name) is invalid; the message says where."""


def read_yaml(path: Path) -> tuple[yaml.Node | None, Any]:
    """Return a file's node tree, for the lines of later errors, and its content.

    Raises:
        SettingsError: The file cannot be read, or is not YAML that is accepted here.
    """
    return parse_yaml(_read_text(path), str(path))


def parse_yaml(text: str, path: str) -> tuple[yaml.Node | None, Any]:
    """Return the node tree of a text and its content, None and None where it is empty.

    Args:
        text: The text.
        path: Its path, or what else errors call it.

    Raises:
        SettingsError: It is not YAML that is accepted here.
    """
    loader: Any = None
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
        if tree is None:
            return None, None
        problems = list(_problems(loader, tree))
        if problems:
            raise SettingsError("\n".join(f"{path}:{line}: {why}" for line, why in problems))
        return tree, _Loader(text).get_single_data()  # a new loader: merging changes the nodes
    except yaml.YAMLError as error:
        raise SettingsError(_explain(path, text, error)) from error
    except SettingsError:
        raise
    except (ValueError, OverflowError) as error:  # an escape that is no character
        place = f"{path}:{loader.line + 1}"
        raise SettingsError(f"{place}: not valid YAML: {error}: write the character") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: nested too deeply: hundreds of levels") from error


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}:{line}: not UTF-8: save the file in that encoding") from error


def line_of(tree: yaml.Node | None, location: Location) -> int:
    """Return the line (from 1) of the key at ``location``, or of the nearest one above it."""
    line, node = 1, tree
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = _entry(node, str(part))
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = cast("yaml.Node", node.value[part])
            line = node.start_mark.line + 1
    return line


def _entry(node: yaml.MappingNode, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    """Return a key of a mapping with its value; the mapping's own keys precede merged ones."""
    merged: list[yaml.Node] = []
    for key, value in _entries(node):
        if key.tag == MERGE and isinstance(value, yaml.SequenceNode):
            merged += cast("list[yaml.Node]", value.value)
        elif key.tag == MERGE:
            merged.append(value)
        elif key.value == name:
            return key, value
    mappings = (one for one in merged if isinstance(one, yaml.MappingNode))
    return next((found for one in mappings if (found := _entry(one, name))), None)


def _entries(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    return cast("list[tuple[yaml.Node, yaml.Node]]", node.value)


class _Loader(yaml.SafeLoader):
    """SafeLoader whose errors about values (a date in month 13) have a line, too."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401 - PyYAML's
        try:
            return super().construct_object(node, deep=deep)
        except _VALUE_ERRORS as error:
            problem = f"{str(node.value)[:40]!r} is not a valid value ({error}); quote a string"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def _problems(loader: _Loader, tree: yaml.Node) -> Generator[tuple[int, str]]:
    """Yield line and description of each mistake that YAML itself accepts."""
    pending, seen = [tree], set[int]()
    while pending:
        node = pending.pop(0)
        if id(node) in seen:  # an anchor's node, used again
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield from _key_problems(loader, node)
            pending += [value for _, value in _entries(node)]
        elif isinstance(node, yaml.SequenceNode):
            pending += cast("list[yaml.Node]", node.value)
        elif node.tag == "tag:yaml.org,2002:float":
            value: float = loader.construct_object(node)
            if not math.isfinite(value):
                yield node.start_mark.line + 1, f"{node.value}: write a finite number"


def _key_problems(loader: _Loader, node: yaml.MappingNode) -> Generator[tuple[int, str]]:
    first: dict[str, int] = {}
    for key, _ in _entries(node):
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            yield line, "a list or mapping cannot be a key: write a name"
        elif key.tag not in ("tag:yaml.org,2002:str", MERGE):
            found = loader.construct_object(key)
            yield line, f"the key {key.value!r} is not a string in YAML but {found!r}: quote it"
        elif key.value in first:
            yield line, f"the key {key.value!r} is already in line {first[key.value]}: keep one"
        else:
            first[key.value] = line


def _explain(path: str, text: str, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        line = text[: error.position].count("\n") + 1
        return f"{path}:{line}: not valid YAML: the character {chr(error.character)!r}: remove it"
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if mark is None:
        return f"{path} is not valid YAML: {error}"
    problem = getattr(error, "problem", None) or "it cannot be read"
    if "'\\t'" in problem:
        problem += ": indent with spaces"
    snippet = mark.get_snippet(indent=2) or ""
    lines = f"\n{snippet}" if snippet.strip(" ^\n") else ""
    return f"{path}:{mark.line + 1}: not valid YAML: {problem}{lines}"
