"""Read flows.yaml: the current folder's, else the packaged one; errors name the key and line."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .settings import FlowsFile, Preset, PresetName
from .yaml_file import SettingsError, line_of, read_yaml

FILE_NAME = "flows.yaml"
Location = tuple[int | str, ...]
_WAY = re.compile("constrained-(?:int|float|str)|ConcurrencyLimit")
"""Pydantic's names for the members of a union, as they appear in an error's location."""
_WRONG_WAY = ("int_type", "float_type", "string_type", "model_type", "dict_type")


def find_flows_file(folder: Path | None = None) -> Path:
    """Return the current folder's flows.yaml, else the packaged one."""
    own = (folder or Path.cwd()) / FILE_NAME
    is_there = own.exists() or own.is_symlink()  # a folder or a dangling link is reported
    return own if is_there else Path(__file__).with_name(FILE_NAME)


def load_flows_file(path: Path | None = None) -> FlowsFile:
    """Read and check flows.yaml.

    Raises:
        SettingsError: The file is not YAML, or a key or value is wrong; the message names the path,
            the line, the key and the nearest valid key.
    """
    path = path or find_flows_file()
    tree, content = read_yaml(path)
    try:
        return FlowsFile.model_validate(content)
    except ValidationError as error:
        lines = [_explain(path, tree, item) for item in _plain(error.errors())]
        raise SettingsError("\n".join(lines)) from error


def load_preset(name: str, path: Path | None = None) -> Preset:
    """Return the parameters of a preset.

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


def _plain(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Return the errors without pydantic's names for the members of a union.

    For a value that may be a number or a mapping, only errors of the form in which it is written
    are returned.
    """
    found: list[ErrorDetails] = []
    for item in errors:
        ways = [part for part in item["loc"] if _WAY.fullmatch(str(part))]
        is_number = any(str(way).islower() for way in ways)
        if ways and is_number == isinstance(item["input"], dict) and item["type"] in _WRONG_WAY:
            continue
        item["loc"] = tuple(part for part in item["loc"] if part not in ways)
        found.append(item)
    return found


def _explain(path: Path, tree: yaml.Node | None, item: ErrorDetails) -> str:
    location: Location = item["loc"]
    if not location:
        found = _shown(item["input"])
        return f"{path}: expected a mapping with the key 'presets', found {found}"
    key = ".".join(str(part) for part in location)
    place = f"{path}:{line_of(tree, location)}"
    parent = location[:-1]
    if item["type"] == "extra_forbidden":
        return f"{place}: unknown key {key!r}{_nearest(str(location[-1]), _valid_keys(parent))}"
    if location[-1] == "[key]":
        found = str(location[-2])
        key = ".".join(str(part) for part in parent)
        return f"{place}: unknown key {key!r}{_nearest(found, get_args(PresetName))}"
    if item["type"] == "missing":
        return f"{place}: key {key!r} is missing"
    reason = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("model_type", "dict_type"):
        reason = "expected keys and their values"
    return f"{place}: {key}: {reason}, got {_shown(item['input'])}"


def _shown(value: object) -> str:
    return "nothing" if value is None else reprlib.repr(value)


def _nearest(key: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; valid here: {', '.join(sorted(valid))}"


@cache
def _valid_keys(location: Location) -> tuple[str, ...]:
    """Return the valid keys of the model at ``location``."""
    model: type[BaseModel] | None = FlowsFile
    for part in location:
        if isinstance(part, int) or part in get_args(PresetName) or model is None:
            continue
        model = _model_of(model, part)
    if model is None:
        return ()
    return tuple(field.alias or name for name, field in model.model_fields.items())


def _model_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the model of field ``name``: its type, its list items or its mapping values."""
    field = model.model_fields.get(name)
    pending: list[Any] = [field.annotation] if field is not None else []
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        pending.extend(get_args(annotation))
    return None
