"""Presets that build on others (``extends``), and single values set over one (``--set``).

A preset of flows.yaml may name another, in the same file or in the packaged one, with ``extends``;
what it writes itself is laid over that one, mapping by mapping. An override is one value by its
place, ``grpo.steps=300``, read as YAML reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import yaml
from pydantic import ValidationError

from .key_names import nearest_key, valid_keys
from .settings import Preset
from .yaml_file import SettingsError

EXTENDS = "extends"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,49}")
"""A preset's name begins its runs' ids, which are names of folders."""
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
            each other in a circle.
    """
    for name in raw:
        if not NAME.fullmatch(name):
            raise PresetProblem(
                (name,),
                "a preset's name has letters, digits, '_', '-' and '.', at most 50: rename it",
            )
    return {name: _built(name, raw, packaged, ()) for name in raw}


def _built(
    name: str,
    raw: Mapping[str, Any],
    packaged: Callable[[], Mapping[str, Any]],
    below: Sequence[str],
) -> Any:  # noqa: ANN401 - what YAML holds, to be validated afterwards
    own = raw[name]
    if not isinstance(own, Mapping) or EXTENDS not in own:
        return own
    own = cast("Mapping[str, Any]", own)
    parent, chain = own[EXTENDS], (*below, name)
    place = (chain[0], EXTENDS)
    if not isinstance(parent, str):
        raise PresetProblem((name, EXTENDS), f"expected a preset's name, got {parent!r}")
    written = {key: value for key, value in own.items() if key != EXTENDS}
    if parent == name or (parent not in raw and parent in packaged()):
        under = packaged().get(parent)  # `quick: {extends: quick}` builds on the packaged one
        if under is None:
            raise PresetProblem(place, f"{parent!r} extends itself: name another preset")
        return laid_over(under, written)
    if parent in chain:
        raise PresetProblem(place, f"a circle: {' → '.join((*chain, parent))}: cut it")
    if parent not in raw:
        known = sorted({*raw, *packaged()} - {name})
        raise PresetProblem(
            (name, EXTENDS), f"there is no preset {parent!r}{nearest_key(parent, known)}"
        )
    return laid_over(_built(parent, raw, packaged, chain), written)


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
    """Read overrides as a user writes them, by their keys.

    >>> read_overrides(["grpo.steps=300", "suite=nano:count,bars", "sft.shown_directly=[tag]"])
    {'grpo.steps': 300, 'suite': 'nano:count,bars', 'sft.shown_directly': ['tag']}

    Raises:
        SettingsError: One is not ``KEY=VALUE``, its value is not YAML, or a key is set twice.
    """
    found: Tree = {}
    for text in texts or ():
        key, mark, value = (part.strip() for part in text.partition("="))
        if not key or not mark or not value:
            raise SettingsError(f"--set {text}: expected KEY=VALUE, such as grpo.steps=300")
        for other in found:
            if key == other or key.startswith(f"{other}.") or other.startswith(f"{key}."):
                raise SettingsError(f"--set {text}: {other} is set already: keep one of them")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SettingsError(f"--set {text}: the value is not valid YAML: {error}") from error
    return found


def with_overrides(preset: Preset, overrides: Mapping[str, Any]) -> Preset:
    """Return a preset with single values replaced.

    Args:
        preset: The preset.
        overrides: New values by their place: ``{"grpo.steps": 300}``.

    Raises:
        SettingsError: There is no such key, or it does not take the value.
    """
    if not overrides:
        return preset
    tree: Tree = preset.model_dump()
    for key, value in overrides.items():
        parts = key.split(".")
        node = tree
        for depth, part in enumerate(parts):
            if not isinstance(node, dict) or part not in node:
                valid = valid_keys(type(preset), tuple(parts[:depth]))
                raise SettingsError(f"--set {key}: unknown key {key!r}{nearest_key(part, valid)}")
            if depth < len(parts) - 1:
                node = node[part]
        node[parts[-1]] = laid_over(node[parts[-1]], value)
    try:
        return type(preset).model_validate(tree)
    except ValidationError as error:
        item = error.errors()[0]
        place = ".".join(str(part) for part in item["loc"])
        given = next((key for key in overrides if place.startswith(key)), place)
        reason = item["msg"].removeprefix("Value error, ")
        raise SettingsError(f"--set {given}: {reason}, got {overrides.get(given)!r}") from error
