"""Base model of every part of flows.yaml: refuses unknown keys and invalid numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class StrictModel(BaseModel):
    """Base model that refuses unknown keys, infinity, NaN, and booleans in place of numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: object, info: ValidationInfo) -> object:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if _holds_boolean(value) and not _takes_boolean(annotation):
            raise ValueError(
                "it is a boolean (YAML reads yes, no, on and off as booleans): write a number or "
                "a string in quotes"
            )
        return value


def _holds_boolean(value: object) -> bool:
    """Return whether a value is a boolean, or a list or mapping that contains one."""
    pending, seen = [value], set[int]()
    while pending:
        one = pending.pop()
        if isinstance(one, bool):
            return True
        if id(one) in seen:  # an anchor may contain itself
            continue
        seen.add(id(one))
        if isinstance(one, Mapping):
            pending += cast("Mapping[Any, object]", one).values()
        elif isinstance(one, list | tuple):
            pending += cast("Iterable[object]", one)
    return False


def _takes_boolean(annotation: object) -> bool:
    """Return whether a field may contain a boolean; a nested model checks its own fields."""
    if annotation is bool or annotation is cast("object", Any):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True  # it checks its own fields
    return any(map(_takes_boolean, get_args(annotation)))
