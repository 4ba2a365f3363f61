"""Read flows.yaml: the current folder's, else the packaged one; errors name the key and line."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .deployments import FLOWS_MODULE, Deployment, FlowsFile, WorkPool, flows_model
from .flow_parameters import PIPELINE, FlowParameters, parameter_problems
from .key_names import Location, nearest_key, valid_keys
from .presets import EXTENDS, PresetProblem, build_presets, with_absolute_paths
from .registry import entries, find_stage, stage_names
from .settings import Preset, fitting_presets
from .yaml_file import SettingsError, line_of, read_yaml

FILE_NAME = "flows.yaml"
_PACKAGED = Path(__file__).with_name(FILE_NAME)
_WAY = re.compile("constrained-(?:int|float|str)|ConcurrencyLimit")
"""Pydantic's names for the members of a union, as they appear in an error's location."""
_WRONG_WAY = ("int_type", "float_type", "string_type", "model_type", "dict_type")


def find_flows_file(folder: Path | None = None) -> Path:
    """Return the current folder's flows.yaml, else the packaged one."""
    own = (folder or Path.cwd()) / FILE_NAME
    is_there = own.exists() or own.is_symlink()  # a folder or a dangling link is reported
    return own if is_there else _PACKAGED


def load_flows_file(path: Path | None = None) -> FlowsFile:
    """Read and check flows.yaml; a preset that extends another holds that one's values too.

    Raises:
        SettingsError: The file is not YAML, or a key or value is wrong; the message names the path,
            the line, the key and the nearest valid key.
    """
    path = path or find_flows_file()
    tree, content = read_yaml(path)
    raw = _raw_presets(path, content)
    written = {name: _without_extends(preset) for name, preset in raw.items()}
    found = _validated(path, tree, {**content, "presets": written} if raw else content)
    try:
        built = build_presets(raw, partial(_packaged_presets, path))
    except PresetProblem as problem:
        place = ("presets", *problem.key)
        raise SettingsError(_line(path, tree, place, str(problem))) from problem
    found = found if built == raw else _validated(path, tree, {**content, "presets": built})
    if lines := [
        _line(path, tree, *item) if isinstance(item, tuple) else _explain(path, tree, item)
        for item in parameter_problems(found)
    ]:
        raise SettingsError("\n".join(lines))
    return found


def _validated(path: Path, tree: yaml.Node | None, content: object) -> FlowsFile:
    try:
        return flows_model().model_validate(content)
    except ValidationError as error:
        lines = [_explain(path, tree, item) for item in _plain(error.errors())]
        raise SettingsError("\n".join(lines)) from error


def _line(path: Path, tree: yaml.Node | None, location: Location, reason: str) -> str:
    return f"{path}:{line_of(tree, location)}: {'.'.join(map(str, location))}: {reason}"


def _raw_presets(path: Path, content: object) -> Mapping[str, Any]:
    """Return the presets as the file has them; nothing where they are no mapping.

    The packaged ones are fitted to the stages of other packages that replace ours.
    """
    presets = cast("Mapping[str, Any]", content).get("presets") if _is_mapping(content) else None
    found = cast("Mapping[str, Any]", presets) if _is_mapping(presets) else {}
    return fitting_presets(found) if path.resolve() == _PACKAGED.resolve() else found


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _without_extends(preset: Any) -> Any:  # noqa: ANN401 - what YAML holds
    if not isinstance(preset, Mapping):
        return preset
    own = cast("Mapping[str, Any]", preset)
    return {key: value for key, value in own.items() if key != EXTENDS}


def _packaged_presets(reader: Path) -> Mapping[str, Any]:
    """Return the packaged presets, for those of another file to extend."""
    if reader.resolve() == _PACKAGED.resolve():
        return {}
    return build_presets(_raw_presets(_PACKAGED, read_yaml(_PACKAGED)[1]), dict[str, Any])


def all_deployments(path: Path) -> list[Deployment]:
    """Return the deployments of a file, and one per stage of another package that has none there.

    Those have the work pool of the file's first deployment, and no schedule. For a file without
    deployments, they are those of `_default_deployments`.

    Raises:
        SettingsError: flows.yaml is wrong.
        StageLoadError: A stage of another package cannot be loaded.
    """
    file = load_flows_file(path)
    written = file.deployments
    if not written:
        return _default_deployments(file)
    named = {entry.entrypoint for entry in written}
    pool = next((entry.work_pool for entry in written if entry.work_pool is not None), None)
    added = [_deployment(name, pool) for name in entries()]
    return [*written, *(entry for entry in added if entry.entrypoint not in named)]


def _default_deployments(file: FlowsFile) -> list[Deployment]:
    """Return deployments of all flows, with the packaged work pool and without schedules.

    The pipeline and the stages that read no other have one per preset; the others have one, which
    takes the newest inputs.
    """
    packaged = load_flows_file(_PACKAGED).deployments
    pool = next(entry.work_pool for entry in packaged if entry.work_pool is not None)
    found: list[Deployment] = []
    for name in (PIPELINE, *stage_names()):
        takes_newest = name != PIPELINE and find_stage(name).inputs
        presets = [None] if takes_newest else file.presets
        found += [_deployment(name, pool, preset, pull=[]) for preset in presets]
    return found


def _deployment(
    flow: str,
    pool: WorkPool | None,
    preset: str | None = None,
    pull: list[dict[str, Any]] | None = None,
) -> Deployment:
    """Return a deployment of one of our flows."""
    is_whole = flow == PIPELINE
    summary = "Run all stages and write the report." if is_whole else find_stage(flow).summary
    return Deployment(
        name=preset or "newest",
        entrypoint=f"{FLOWS_MODULE}.{flow}",
        description=summary,
        tags=["codedance"],
        parameters={"preset": preset} if preset else {},
        work_pool=pool,
        pull=pull,
    )


def load_preset(name: str, path: Path | None = None) -> Preset:
    """Return the parameters of a preset, with relative paths from the current folder as absolute.

    Raises:
        SettingsError: There is no such preset, or flows.yaml is wrong.
    """
    path = path or find_flows_file()
    presets = load_flows_file(path).presets
    for known, preset in presets.items():
        if known == name:
            return with_absolute_paths(preset)
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
        return f"{place}: unknown key {key!r}{nearest_key(str(location[-1]), _valid_keys(parent))}"
    if item["type"] == "missing":
        return f"{place}: key {key!r} is missing"
    reason = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("model_type", "dict_type"):
        reason = "expected keys and their values"
    return f"{place}: {key}: {reason}, got {_shown(item['input'])}"


def _shown(value: object) -> str:
    return "nothing" if value is None else reprlib.repr(value)


def _valid_keys(location: Location) -> tuple[str, ...]:
    """Return the keys that flows.yaml knows at ``location``."""
    if location[:1] == ("deployments",) and location[-1] == "parameters":
        return tuple(FlowParameters.model_fields)
    valid = valid_keys(flows_model(), location)
    is_preset = len(location) == 2 and location[0] == "presets"
    return (*valid, EXTENDS) if is_preset else valid
