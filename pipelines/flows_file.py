"""Reads flows.yaml: the current folder's, else the packaged one; an error names key and line."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .settings import FlowsFile, Preset, PresetName

FILE_NAME = "flows.yaml"
Location = tuple[int | str, ...]


class SettingsError(ValueError):
    """flows.yaml (or a preset's name) is not as it has to be; the message says where."""


def find_flows_file(folder: Path | None = None) -> Path:
    """Give the current folder's flows.yaml, else the packaged one."""
    own = (folder or Path.cwd()) / FILE_NAME
    return own if own.is_file() else Path(__file__).with_name(FILE_NAME)


def load_flows_file(path: Path | None = None) -> FlowsFile:
    """Read and check flows.yaml.

    Raises:
        SettingsError: It is not YAML, or a key or a value is wrong; the message has the path, the
            line, the key and the nearest valid key.
    """
    path = path or find_flows_file()
    text = path.read_text(encoding="utf-8")
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(_explain_yaml(path, error)) from error
    try:
        return FlowsFile.model_validate(content)
    except ValidationError as error:
        lines = [_explain(path, tree, item) for item in error.errors()]
        raise SettingsError("\n".join(lines)) from error


def load_preset(name: str, path: Path | None = None) -> Preset:
    """Give a preset's parameters.

    Raises:
        SettingsError: There is no such preset, or flows.yaml is wrong.
    """
    path = path or find_flows_file()
    presets = load_flows_file(path).presets
    for known, preset in presets.items():
        if known == name:
            return preset
    near = difflib.get_close_matches(name, list(presets), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise SettingsError(f"there is no preset {name!r} in {path}, only {', '.join(presets)}{hint}")


def _explain_yaml(path: Path, error: yaml.YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if mark is None:
        return f"{path} is not valid YAML: {error}"
    problem = getattr(error, "problem", None) or "it cannot be read"
    snippet = mark.get_snippet(indent=2) or ""
    lines = f"\n{snippet}" if snippet.strip(" ^\n") else ""
    return f"{path}:{mark.line + 1}: not valid YAML: {problem}{lines}"


def _explain(path: Path, tree: yaml.Node | None, item: ErrorDetails) -> str:
    location: Location = item["loc"]
    if not location:
        found = "nothing" if item["input"] is None else reprlib.repr(item["input"])
        return f"{path}: expected the key 'presets' and what it holds, found {found}"
    key = ".".join(str(part) for part in location)
    place = f"{path}:{_line(tree, location)}"
    parent = location[:-1]
    if item["type"] == "extra_forbidden":
        return f"{place}: unknown key {key!r}{_nearest(str(location[-1]), _valid_keys(parent))}"
    if location[-1] == "[key]":
        found = str(location[-2])
        key = ".".join(str(part) for part in parent)
        return f"{place}: unknown key {key!r}{_nearest(found, get_args(PresetName))}"
    if item["type"] == "missing":
        return f"{place}: key {key!r} is missing"
    return f"{place}: {key}: {item['msg']}, got {reprlib.repr(item['input'])}"


def _nearest(key: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; valid here: {', '.join(sorted(valid))}"


def _line(tree: yaml.Node | None, location: Location) -> int:
    """Give the line (from 1) of the key at ``location``, or of the nearest one above it."""
    line, node = 1, tree
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


@cache
def _valid_keys(location: Location) -> tuple[str, ...]:
    """Give the keys that the model at ``location`` knows."""
    model: type[BaseModel] | None = FlowsFile
    for part in location:
        if isinstance(part, int) or part in get_args(PresetName) or model is None:
            continue
        model = _model_of(model, part)
    if model is None:
        return ()
    return tuple(field.alias or name for name, field in model.model_fields.items())


def _model_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Give the model that field ``name`` holds, alone, in a list or as a mapping's values."""
    field = model.model_fields.get(name)
    pending: list[Any] = [field.annotation] if field is not None else []
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        pending.extend(get_args(annotation))
    return None
