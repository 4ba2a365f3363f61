"""Presets that build on others (``extends``), and single values set over one (``--set``).

A preset of flows.yaml may name another, in the same file or in the packaged one, with ``extends``;
what it writes itself is laid over that one, mapping by mapping. An override is one value by its
place, ``grpo.steps=300``, read as a value of flows.yaml; it replaces a field whole.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError

from .key_names import nearest_key, valid_keys
from .settings import Preset
from .strict_model import absolute_paths
from .yaml_file import SettingsError, parse_yaml

EXTENDS = "extends"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,49}")
"""A preset's name begins its runs' ids, which are names of folders."""
MAX_CHAIN = 100
"""Largest number of presets of a file that extend one another in a row."""
Tree = dict[str, Any]


class PresetProblem(Exception):  # noqa: N818 - where in the file it is, its reader says
    """A preset cannot be built.

    Args:
        key: Place of the key that is wrong, such as ``("mine", "extends")``.
        reason: The reason, and what to change.
    """

    def __init__(self, key: tuple[str, ...], reason: str) -> None:
        super().__init__(reason)
        self.key = key


def build_presets(raw: Mapping[str, Any], packaged: Callable[[], Mapping[str, Any]]) -> Tree:
    """Return every preset of a file with what it extends under it.

    Args:
        raw: The mapping under ``presets``, as the file has it.
        packaged: Called where a preset extends one that the file does not hold.

    Raises:
        PresetProblem: A name is unusable, an extended preset does not exist, or presets extend
            each other in a circle or in a chain that is too long.
    """
    for name in raw:
        if not NAME.fullmatch(name):
            raise PresetProblem(
                (name,),
                "a preset's name has letters, digits, '_', '-' and '.', at most 50: rename it",
            )
    return {name: _built(name, raw, packaged) for name in raw}


def _built(
    name: str,
    raw: Mapping[str, Any],
    packaged: Callable[[], Mapping[str, Any]],
) -> Any:  # noqa: ANN401 - what YAML holds, to be validated afterwards
    chain, own, written = [name], raw[name], list[Tree]()
    while isinstance(own, Mapping) and EXTENDS in own:
        own = cast("Mapping[str, Any]", own)
        written.append({key: value for key, value in own.items() if key != EXTENDS})
        parent = _parent(chain, own[EXTENDS], raw, packaged)
        if parent == chain[-1] or parent not in raw:
            own = packaged()[parent]  # `quick: {extends: quick}` builds on the packaged one
            break
        chain.append(parent)
        own = raw[parent]
    for over in reversed(written):
        own = laid_over(own, over)
    return own


def _parent(
    chain: Sequence[str],
    parent: object,
    raw: Mapping[str, Any],
    packaged: Callable[[], Mapping[str, Any]],
) -> str:
    """Return the preset that the last one of a chain extends, after checking it."""
    first, name = (chain[0], EXTENDS), chain[-1]
    if not isinstance(parent, str):
        raise PresetProblem((name, EXTENDS), f"expected a preset's name, got {parent!r}")
    if parent == name and parent not in packaged():
        raise PresetProblem(first, f"{parent!r} extends itself: name another preset")
    if parent == name or (parent not in raw and parent in packaged()):
        return parent
    if parent in chain:
        raise PresetProblem(first, f"a circle: {' → '.join((*chain, parent))}: cut it")
    if parent not in raw:
        known = sorted({*raw, *packaged()} - {name})
        raise PresetProblem(
            (name, EXTENDS), f"there is no preset {parent!r}{nearest_key(parent, known)}"
        )
    if len(chain) >= MAX_CHAIN:
        shown = " → ".join((*chain[:3], "…", chain[-1], parent))
        raise PresetProblem(
            first, f"a chain of more than {MAX_CHAIN} presets ({shown}): shorten it"
        )
    return parent


def laid_over(under: Any, over: Any) -> Any:  # noqa: ANN401 - trees of YAML
    """Return ``under`` with the values of ``over``, mapping by mapping; lists are replaced.

    >>> laid_over({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    if not isinstance(under, Mapping) or not isinstance(over, Mapping):
        return over
    lower, upper = cast("Mapping[str, Any]", under), cast("Mapping[str, Any]", over)
    merged = {**lower, **upper}
    for key in lower.keys() & upper.keys():
        merged[key] = laid_over(lower[key], upper[key])
    return merged


def read_overrides(texts: Sequence[str] | None) -> Tree:
    """Read overrides as a user writes them, by their keys; a value is read as in flows.yaml.

    >>> read_overrides(["grpo.steps=300", "suite=nano:count,bars", "sft.shown_directly=[tag]"])
    {'grpo.steps': 300, 'suite': 'nano:count,bars', 'sft.shown_directly': ['tag']}

    Raises:
        SettingsError: One is not ``KEY=VALUE``, its value is not YAML that flows.yaml could hold,
            or a key is set twice.
    """
    found: Tree = {}
    for text in texts or ():
        key, mark, value = (part.strip() for part in text.partition("="))
        if not key or not mark or not value:
            raise SettingsError(f"--set {text}: expected KEY=VALUE, such as grpo.steps=300")
        for other in found:
            if _overlap(key, other):
                raise SettingsError(f"--set {text}: {other} is set already: keep one of them")
        found[key] = _read_value(f"--set {key}", value)
    return found


def _read_value(option: str, text: str) -> Any:  # noqa: ANN401 - what YAML holds
    try:
        tree, value = parse_yaml(text, option)
    except SettingsError as error:
        raise SettingsError(str(error).replace(f"{option}:1: ", f"{option}: ")) from error
    if tree is None:
        raise SettingsError(f"{option}: {text!r} is a comment in YAML: quote the value")
    return value


def _overlap(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")


def flat_overrides(preset: Preset, overrides: Mapping[str, Any]) -> Tree:
    """Return overrides with one key per field; a mapping of fields is taken apart.

    ``{"grpo": {"steps": 4}}`` becomes ``{"grpo.steps": 4}``. A field that is a mapping itself
    (``grpo.reward_terms``) is one value, and so is each entry of it. Relative paths become
    absolute, so that a recorded override means the same file in every folder.

    Raises:
        SettingsError: A key does not exist, two set the same, or a mapping is empty.
    """
    tree: Tree = preset.model_dump()
    found: Tree = {}
    for key, value in overrides.items():
        for field, given in _fields(type(preset), tree, _path(type(preset), tree, key), value):
            path, one = _with_absolute_place(type(preset), field, given)
            name = ".".join(path)
            for other in found:
                if _overlap(name, other):
                    raise SettingsError(f"--set {key}: {other} is set already: keep one of them")
            found[name] = one
    return found


def merged_overrides(preset: Preset, recorded: Mapping[str, Any], new: Mapping[str, Any]) -> Tree:
    """Return recorded overrides with newer ones over them, both by field; the newer one wins.

    An entry of a field that is a mapping is put into a recorded value of that field.

    Raises:
        SettingsError: A recorded key does not exist any more.
    """
    merged = {
        key: value
        for key, value in flat_overrides(preset, recorded).items()
        if not any(key == other or key.startswith(f"{other}.") for other in new)
    }
    for key, value in new.items():
        whole = next((one for one in merged if key.startswith(f"{one}.")), None)
        if whole is None:
            merged[key] = value
        else:
            merged[whole] = {**merged[whole], key.removeprefix(f"{whole}."): value}
    return merged


def _path(model: type[Preset], tree: Tree, key: str) -> tuple[str, ...]:
    """Return the place of a key; what follows a field that is a mapping is one key of it."""
    parts, node = key.split("."), cast("Any", tree)
    for depth, part in enumerate(parts):
        valid = valid_keys(model, tuple(parts[:depth]))
        if not valid and isinstance(node, dict) and all(parts[depth:]):
            return (*parts[:depth], ".".join(parts[depth:]))
        if part not in valid:
            raise SettingsError(f"--set {key}: unknown key {key!r}{nearest_key(part, valid)}")
        node = cast("Tree", node).get(part) if isinstance(node, dict) else None
    return tuple(parts)


def _fields(
    model: type[Preset], tree: Tree, path: tuple[str, ...], value: object
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield place and value of each field that an override sets."""
    valid = valid_keys(model, path)
    if not valid or not isinstance(value, Mapping):
        yield path, value
        return
    key = ".".join(path)
    if not value:
        raise SettingsError(f"--set {key}: an empty mapping sets nothing: leave it out")
    for name, one in cast("Mapping[str, object]", value).items():
        yield from _fields(model, tree, _path(model, tree, f"{key}.{name}"), one)


def _with_absolute_place(
    model: type[Preset], path: tuple[str, ...], value: object
) -> tuple[list[str], object]:
    """Return place and value of a field with the paths in them absolute."""
    node: Any = value
    for part in reversed(path):
        node = {part: node}
    node = absolute_paths(model, node)
    parts: list[str] = []
    for _ in path:
        ((part, node),) = node.items()
        parts.append(part)
    return parts, node


def with_absolute_paths(preset: Preset) -> Preset:
    """Return a preset with its relative paths absolute: the same files in every folder."""
    model = type(preset)
    return model.model_validate(absolute_paths(model, preset.model_dump()))


def with_overrides(preset: Preset, overrides: Mapping[str, Any]) -> Preset:
    """Return a preset with single values replaced.

    Args:
        preset: The preset.
        overrides: New values by their place: ``{"grpo.steps": 300}``.

    Raises:
        SettingsError: There is no such key, it does not take the value, or two set the same.
    """
    if not overrides:
        return preset
    tree: Tree = preset.model_dump()
    flat = flat_overrides(preset, overrides)
    for key, value in flat.items():
        *above, last = _path(type(preset), tree, key)
        node = tree
        for part in above:
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        node[last] = value
    try:
        return type(preset).model_validate(tree)
    except ValidationError as error:
        item = error.errors()[0]
        place = ".".join(str(part) for part in item["loc"])
        given = _blamed(place, flat)
        reason = item["msg"].removeprefix("Value error, ")
        value = reprlib.repr(flat.get(given, item["input"]))
        raise SettingsError(f"--set {given}: {reason}, got {value}") from error


def _blamed(place: str, overrides: Mapping[str, Any]) -> str:
    """Return the override that caused an error at ``place``: above it, else below it."""
    above = [key for key in overrides if f"{place}.".startswith(f"{key}.")]
    below = [key for key in overrides if not place or key.startswith(f"{place}.")]
    return max(above, key=len, default=next(iter(below), place))
