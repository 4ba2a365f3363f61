"""Checks of a stage of another package, when it is loaded and when it has run.

Each raises a `ValueError` with the problem and the remedy; `registry` adds the stage and package.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from inspect import isasyncgenfunction, iscoroutine, iscoroutinefunction, signature, unwrap
from typing import Any, cast

LOST = "lost"
"""Key in the outputs of a run: episodes without a verdict by phase, read by `store.lineage`."""


def inner_function(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function within decorators and `functools.partial`."""
    inner = unwrap(run)
    while isinstance(inner, partial):
        inner = unwrap(cast("partial[Any]", inner).func)
    return inner


def check_function(run: object) -> None:
    """Refuse what cannot be called with the context alone, or is ``async``."""
    if not callable(run):
        raise ValueError(f"{run!r} is no function: decorate a function with @stage")
    inner = inner_function(run)
    if iscoroutinefunction(inner) or isasyncgenfunction(inner):
        raise ValueError(
            "its function is async: a stage runs in a thread; write def, not async def"
        )
    try:
        signature(run).bind("context")
    except TypeError as error:
        raise ValueError(
            f"its function cannot be called with the context alone ({error}): let it take one "
            "argument, a StageContext"
        ) from error
    except ValueError:
        return  # a function of an extension module, whose arguments are not known


def check_names(what: str, names: object, known: Collection[str] | None = None) -> None:
    """Refuse one name in place of several, and names that are not among ``known``."""
    if isinstance(names, str):
        raise ValueError(f"its {what} are the text {names!r}: write ({names!r},)")
    for name in cast("Iterable[object]", names):
        if known is not None and name not in known:
            raise ValueError(
                f"it {what} {name!r}, which no preset has; there are {', '.join(sorted(known))}"
            )


def check_settings(settings: object) -> None:
    """Refuse a model of a section that is not strict, lacks a default, or cannot be recorded."""
    from pydantic import ValidationError
    from pydantic_core import PydanticSerializationError

    from .strict_model import StrictModel

    if settings is None:
        return
    name = getattr(settings, "__name__", repr(settings))
    if not (isinstance(settings, type) and issubclass(settings, StrictModel)):
        raise ValueError(
            f"its settings {name} are no StrictModel, so that a typo in flows.yaml would pass: "
            f"derive the class from {StrictModel.__module__}.StrictModel"
        )
    try:
        made = settings()
    except ValidationError as error:
        item = error.errors()[0]
        field = ".".join(str(part) for part in item["loc"]) or name
        raise ValueError(
            f"its settings {name} cannot be made without values ({field}: {item['msg']}): give "
            "every field a valid default"
        ) from error
    try:
        recorded = json.dumps(made.model_dump(mode="json"))
        is_same = settings.model_validate(json.loads(recorded)) == made
    except (PydanticSerializationError, TypeError, ValueError) as error:
        raise ValueError(
            f"its settings {name} cannot be recorded as JSON and read back ({error}): use numbers, "
            "text, paths, dates, lists and mappings"
        ) from error
    if not is_same:
        raise ValueError(
            f"its settings {name} change when they are recorded as JSON and read back: use "
            "numbers, text, paths, dates, lists and mappings"
        )


def check_result(made: object) -> None:
    """Refuse what is no result of a stage, and outputs that the lineage cannot hold."""
    outputs: object = getattr(made, "outputs", None)
    if iscoroutine(made):
        made.close()
    if not isinstance(outputs, Mapping):
        raise ValueError(
            f"it returned {_shown(made)}, no StageResult: return StageResult(outputs) with a "
            "mapping of outputs"
        )
    for name, value in cast("Mapping[object, object]", outputs).items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"its output {name!r} is {_shown(value)}, which the lineage cannot hold ({error}): "
                "use numbers, text, lists and mappings"
            ) from error
        if name == LOST and not _are_counts(value):
            raise ValueError(
                f"its output {name!r} is {value!r}, which is reserved for the number of episodes "
                "lost to infrastructure, by phase: rename it"
            )


def _are_counts(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(count, int) for count in cast("Mapping[str, object]", value).values()
    )


def _shown(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
