"""A user's own reward terms: one weighted function each, in addition to those of a preset.

A term is referenced by its registered name, or by its location: ``file.py:function`` or
``module:function``. A registered term applies to every preset; `with_terms` adds terms to one.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import cast

from ..traced import line_in
from ..types import Trajectory
from .presets import RewardPreset, reward_preset

RewardTerm = Callable[[Trajectory], float]
"""A pure function of a scored trajectory."""

_BUILT_IN = frozenset({"accuracy", "format", "tool_sequence", "tool_turn"})
_FUNCTIONS: dict[str, RewardTerm] = {}
_JOINING: dict[str, float] = {}
_FOUND: dict[str, str] = {}
"""Name of each function that was referenced by location."""


def register_reward_term(name: str, *, weight: float = 1.0) -> Callable[[RewardTerm], RewardTerm]:
    """Add the decorated function, times ``weight``, to the reward of every scored trajectory.

    It is computed at the end of an episode. Registering a name again replaces the term.

    Args:
        name: Key of the term in ``reward_terms``.
        weight: Factor of the function's value.

    Raises:
        ValueError: The name is that of a built-in term, or the weight is not finite. Later, from
            scoring: the function raised, or returned a value that is not a finite number.

    >>> @register_reward_term("brevity", weight=-0.01)
    ... def brevity(trajectory):
    ...     return len(trajectory.turns)
    >>> unregister_reward_term("brevity")
    """
    _check_name(name)
    _check_weight(name, weight)

    def register(term: RewardTerm) -> RewardTerm:
        _FUNCTIONS[name] = term
        _JOINING[name] = weight
        return term

    return register


def unregister_reward_term(name: str) -> None:
    """Remove a user's term; an unknown name is a `KeyError`."""
    del _FUNCTIONS[name]
    _JOINING.pop(name, None)


def with_terms(reward: str | RewardPreset, terms: Mapping[str, float] | None) -> RewardPreset:
    """Return a preset with additional own terms, by name or location, and their weights.

    Args:
        reward: Reward preset or its name.
        terms: Weights by registered name, ``file.py:function`` or ``module:function``.

    Raises:
        ValueError: The preset or a function is unknown, two terms have the same name, or a weight
            is not finite.
    """
    preset = reward_preset(reward)
    chosen = dict(preset.own_terms) | dict(terms or {})
    changed = replace(preset, own_terms=tuple(chosen.items()))
    added_terms(changed)
    return changed


def added_terms(preset: RewardPreset | None = None) -> dict[str, RewardTerm]:
    """Return the own terms by name, weights applied: the registered ones, then the preset's.

    A weight in the preset takes precedence over the registered one.
    """
    return {name: _weighted(name, weight) for name, weight in _weights(preset).items()}


def _weights(preset: RewardPreset | None) -> dict[str, float]:
    """Return the weight of each own term by name, after loading its function."""
    weights = dict(_JOINING)
    named: dict[str, str] = {}
    for reference, weight in preset.own_terms if preset is not None else ():
        name = _name_of(reference)
        if name in named:
            raise ValueError(f"{named[name]!r} and {reference!r} are both called {name!r}")
        named[name] = reference
        weights[name] = _check_weight(reference, weight)
    return weights


def own_term_names(preset: RewardPreset | None = None) -> tuple[str, ...]:
    """Return the names of the own terms, in order."""
    return tuple(added_terms(preset))


def own_term_programs(preset: RewardPreset | None = None) -> dict[str, tuple[float, str]]:
    """Return the weight and the source text of each own term, on which its values depend.

    The text is that of the whole file, since a function may call others in it. The location of the
    file does not matter.
    """
    return {name: (weight, _program(_FUNCTIONS[name])) for name, weight in _weights(preset).items()}


def _program(term: RewardTerm) -> str:
    function = inspect.unwrap(term)
    name = str(getattr(function, "__qualname__", type(function).__qualname__))
    kind = function if hasattr(function, "__code__") else type(function)
    try:
        source = Path(inspect.getsourcefile(kind) or "").read_text(encoding="utf-8")
    except (OSError, TypeError):  # typed in at a prompt, or compiled
        code = getattr(function, "__code__", None)
        source = "" if code is None else f"{code.co_code.hex()} {code.co_names}"
    return f"{name}\n{source}"


def own_term_files(terms: Iterable[str]) -> tuple[Path, ...]:
    """Return the files of the terms that are referenced by location."""
    places = (reference.rpartition(":")[0] for reference in terms)
    return tuple(Path(place) for place in places if place.endswith(".py"))


def _name_of(reference: str) -> str:
    """Return the name of a term, after loading its function if referenced by location."""
    if reference in _FUNCTIONS:
        return reference
    if _FOUND.get(reference) in _FUNCTIONS:
        return _FOUND[reference]
    place, _, function = reference.rpartition(":")
    if not place or not function:
        raise ValueError(_unknown(reference))
    _FOUND[reference] = _adopt(_function(place, function, reference), function)
    return _FOUND[reference]


def _adopt(term: RewardTerm, name: str) -> str:
    """Register a function under its registered name, else under its own; return the name."""
    for known, other in _FUNCTIONS.items():
        if other is term:
            return known
    _check_name(name)
    _FUNCTIONS[name] = term
    return name


def _function(place: str, name: str, reference: str) -> RewardTerm:
    joining = dict(_JOINING)
    module = _file_module(Path(place)) if place.endswith(".py") else _module(place)
    _JOINING.clear()
    _JOINING.update(joining)  # of the terms that a file registers, only the requested one counts
    found = getattr(module, name, None)
    if found is None:
        near = difflib.get_close_matches(name, vars(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"reward term {reference!r}: {place} has no {name!r}{hint}")
    if not callable(found):
        raise ValueError(f"reward term {reference!r} is a {type(found).__name__}, no function")
    return cast(RewardTerm, found)


def _file_module(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"reward_terms_of_{path.stem}", path)
    if not path.is_file() or specification is None or specification.loader is None:
        raise ValueError(f"there is no file {path} to read a reward term from")
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a file may call exit()
        place = f"{path}{line_in(path, error)}"
        raise ValueError(f"{place}: {type(error).__name__}: {error}") from error
    return module


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    sys.path.insert(0, here)  # a console script's own path leaves the current folder out
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"there is no module {name!r} to read a reward term from ({error}); "
            "a file is named with its ending: terms.py:function"
        ) from None
    finally:
        sys.path.remove(here)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _FUNCTIONS, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    known = ", ".join(_FUNCTIONS) or "none"
    return (
        f"unknown reward term {name!r}{hint}; registered: {known}; "
        "or give the location of the function: terms.py:function or module:function"
    )


def _check_name(name: str) -> None:
    if name in _BUILT_IN or not name:
        raise ValueError(f"{name!r} is a built-in reward term; choose another name")


def _check_weight(name: str, weight: float) -> float:
    if not math.isfinite(weight):
        raise ValueError(f"the weight of reward term {name!r} is {weight!r}; it must be finite")
    return weight


def _weighted(name: str, weight: float) -> RewardTerm:
    function = _FUNCTIONS[name]

    def term(trajectory: Trajectory) -> float:
        try:
            value = float(function(trajectory))
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"reward term {name!r} failed on {trajectory.task_id}: {problem}"
            ) from error
        if not math.isfinite(value):
            raise ValueError(f"reward term {name!r} returned {value!r}; a term is a finite number")
        return weight * value

    return term
