"""What every part of flows.yaml is checked by: no unknown key, no number that is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class StrictModel(BaseModel):
    """Refuses unknown keys, infinity, NaN, and truth values for numbers: no slip goes unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object, info: ValidationInfo) -> object:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if _holds_truth_value(value) and not _takes_truth_value(annotation):
            raise ValueError(
                "it is a truth value (YAML reads yes, no, on and off so): write a number, or a "
                "text in quotes"
            )
        return value


def _holds_truth_value(value: object) -> bool:
    """Whether a value is true or false, or a list or mapping with such a value in it."""
    pending, seen = [value], set[int]()
    while pending:
        one = pending.pop()
        if isinstance(one, bool):
            return True
        if id(one) in seen:  # an anchor may hold itself
            continue
        seen.add(id(one))
        if isinstance(one, Mapping):
            pending += cast("Mapping[Any, object]", one).values()
        elif isinstance(one, list | tuple):
            pending += cast("Iterable[object]", one)
    return False


def _takes_truth_value(annotation: object) -> bool:
    """Whether true or false may stand somewhere in a field: its own part of the file decides."""
    if annotation is bool or annotation is cast("object", Any):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True  # it checks its own fields
    return any(map(_takes_truth_value, get_args(annotation)))
