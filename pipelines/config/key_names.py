"""The keys that a part of flows.yaml knows, for messages that name the nearest."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel

Location = tuple[int | str, ...]


def nearest_key(key: str, valid: Sequence[str]) -> str:
    """Return the end of a message about an unknown key: the nearest valid one, or all."""
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; valid here: {', '.join(sorted(valid))}" if valid else ""


@cache
def valid_keys(model: type[BaseModel], location: Location) -> tuple[str, ...]:
    """Return the keys that the part at ``location`` of a model knows; empty where it has none."""
    found: type[BaseModel] | None = model
    is_named = False
    for part in location:
        if found is None:
            return ()
        if isinstance(part, int) or is_named:
            is_named = False  # an entry of a list, or of a mapping whose keys the user chooses
            continue
        field = found.model_fields.get(part)
        is_named = field is not None and get_origin(field.annotation) is dict
        found = _model_in(field.annotation if field is not None else None)
    if found is None or is_named:
        return ()
    return tuple(field.alias or name for name, field in found.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any type
    """Return the model that a field holds, alone, in a list or as a mapping's values."""
    pending: list[Any] = [annotation]
    while pending:
        one = pending.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
        pending.extend(get_args(one))
    return None
