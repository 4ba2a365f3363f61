"""Base model of every part of flows.yaml: refuses unknown keys and invalid numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator


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


Model = TypeVar("Model", bound=StrictModel)


def read_as(section: StrictModel, model: type[Model]) -> Model:
    """Return a section of a preset as the model of our own stage.

    Another package may replace a stage, and its section with it. Fields that both models have keep
    their values, where ours accepts them; the others have our defaults.

    >>> class Ours(StrictModel):
    ...     limit: int = 500
    ...     samples: int = 1
    >>> class Theirs(StrictModel):
    ...     shots: int = 3
    ...     limit: int = 20
    >>> read_as(Theirs(), Ours)
    Ours(limit=20, samples=1)
    """
    if type(section) is model:
        return section
    shared = {name: value for name, value in section if name in model.model_fields}
    return model.model_validate(accepted_part(model, shared))


def accepted_part(model: type[StrictModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values that a model accepts, each and together; unknown keys are not."""
    found = {name: value for name, value in values.items() if _accepts(model, {name: value})}
    return found if _accepts(model, found) else {}


def _accepts(model: type[StrictModel], values: Mapping[str, Any]) -> bool:
    try:
        model.model_validate(values)
    except ValidationError:
        return False
    return True


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
