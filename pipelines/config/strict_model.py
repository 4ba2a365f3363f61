"""Base model of every part of flows.yaml: refuses unknown keys and invalid numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo


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


@dataclass(frozen=True, slots=True)
class LocalPath:
    """Mark of a text setting that may name a file or folder (``Annotated[str, LocalPath(…)]``).

    Attributes:
        absolute: Function that returns the text with the path in it absolute.
    """

    absolute: Callable[[str], str]


def absolute_paths(kind: Any, value: Any) -> Any:  # noqa: ANN401 - a type, and what YAML holds
    """Return a value with the relative paths in it absolute, from the current folder.

    Args:
        kind: Type of the value: of a field, or a model. Paths are texts where it has `Path`, and
            where it is marked with `LocalPath`.
        value: The value, as YAML holds it.

    >>> absolute_paths(dict[str, Path], {"a": "/terms.py"})
    {'a': '/terms.py'}
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        for mark in inner[1:]:
            if isinstance(mark, LocalPath) and isinstance(value, str):
                value = mark.absolute(value)
        return absolute_paths(inner[0], value)
    if origin in (Union, UnionType):
        for way in inner:
            value = absolute_paths(way, value)
        return value
    if isinstance(value, str):
        is_path = isinstance(kind, type) and issubclass(kind, PurePath)
        return str(Path(value).absolute()) if is_path and not value.startswith("~") else value
    if isinstance(value, Mapping):
        return _absolute_entries(kind, cast("Mapping[str, Any]", value))
    if isinstance(value, list | tuple) and (kinds := [one for one in inner if one is not ...]):
        items = enumerate(cast("Iterable[Any]", value))
        return [absolute_paths(kinds[min(place, len(kinds) - 1)], one) for place, one in items]
    return value


def _absolute_entries(kind: Any, value: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ANN401
    inner = get_args(kind)
    if len(inner) == 2:
        return {
            absolute_paths(inner[0], name): absolute_paths(inner[1], one)
            for name, one in value.items()
        }
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return value
    fields = kind.model_fields
    return {
        name: absolute_paths(_kind(fields[name]), one) if name in fields else one
        for name, one in value.items()
    }


def _kind(field: FieldInfo) -> Any:  # noqa: ANN401 - any type
    """Return the type of a field as it was written, with its marks."""
    marks = tuple(field.metadata)
    return Annotated[(field.annotation, *marks)] if marks else field.annotation


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
