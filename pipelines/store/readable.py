"""Read rows that may be damaged: readable ones are returned, the others are reported.

Rows are read in one query; only if that raises are they read one by one. A row with values of
another type than their columns' counts as unreadable, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, cast

from sqlalchemy import (
    JSON,
    Boolean,
    ColumnElement,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    inspect,
    select,
)

from .connection.database import Database
from .connection.errors import StoreAwayError, StoreError, StoreFullError
from .findings import Finding
from .schema import Base, CurationRow, ExecutionRow, LineageRow, ScoreRow, SealRow, TaskRow, TurnRow
from .seals import plain_rows

_DAMAGE = (ValueError, TypeError, ArithmeticError, StoreError)
"""Exceptions that reading a damaged value raises."""

_TYPES: tuple[tuple[Any, tuple[type, ...], str], ...] = (
    (JSON, (dict,), "mapping"),
    (Boolean, (bool,), "boolean"),
    (Float, (int, float), "number"),
    (Integer, (int,), "integer"),
    (DateTime, (datetime,), "time"),
    (LargeBinary, (bytes,), "bytes"),
)
_LISTS = frozenset({"images", "choices", "opening"})
_KINDS: dict[type[Base], str] = {
    TaskRow: "task",
    LineageRow: "run",
    SealRow: "run",
    CurationRow: "run",
}
_PLACES: dict[type[Base], str] = {
    TurnRow: "turn {1}: ",
    ExecutionRow: "execution of turn {1}: ",
    ScoreRow: "score {2} of {1}: ",
    SealRow: "seal of its {1}: ",
    CurationRow: "decision on task {1}: ",
}


@dataclass(frozen=True, slots=True)
class Unread:
    """A row that cannot be read.

    Attributes:
        table: Table of the row.
        key: Primary key; its first value names the run, task or trajectory.
        problem: The column that cannot be read, and the reason.
    """

    table: type[Base]
    key: tuple[Any, ...]
    problem: str

    @property
    def finding(self) -> Finding:
        """Finding about the run, task or trajectory of the row."""
        place = _PLACES.get(self.table, "").format(*self.key)
        kind = _KINDS.get(self.table, "trajectory")
        return Finding(kind, str(self.key[0]), f"{place}{self.problem}")


def read_rows(
    database: Database, table: type[Base], *where: ColumnElement[bool]
) -> tuple[list[dict[str, Any]], list[Unread]]:
    """Return the readable rows as plain values, in the order of their keys, and the others.

    Raises:
        StoreError: The database cannot be read at all.
    """
    unread: list[Unread] = []
    try:
        rows = database.run(lambda session: plain_rows(session, table, *where))
    except (StoreAwayError, StoreFullError):
        raise
    except _DAMAGE:
        rows = list(_one_by_one(database, table, where, unread))
    good: list[dict[str, Any]] = []
    for row in rows:
        if problem := _row_problem(table, row):
            key = tuple(row[str(column.key)] for column in _key_of(table))
            unread.append(Unread(table, key, problem))
        else:
            good.append(row)
    return good, unread


def pictures_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the digests of the images that rows of any table name.

    Raises:
        ValueError: A column that names images is malformed.
    """
    for row in rows:
        for name in ("images", "opening", "reply"):
            value = row.get(name)
            if value is not None and not _has_form(name, value):
                raise ValueError(_malformed(name))
        yield from row.get("images") or ()
        messages = [*(row.get("opening") or ()), *filter(None, [row.get("reply")])]
        for message in messages:
            yield from (part["image"] for part in message["parts"] if "image" in part)


def _one_by_one(
    database: Database,
    table: type[Base],
    where: Sequence[ColumnElement[bool]],
    unread: list[Unread],
) -> Iterator[dict[str, Any]]:
    """Yield rows, each read by its own query, and add those that cannot be read to ``unread``."""
    columns = _key_of(table)
    query = select(*columns).where(*where).order_by(*columns)
    keys = database.run(lambda session: [tuple(key) for key in session.execute(query)])
    for key in keys:
        this = [column == value for column, value in zip(columns, key, strict=True)]
        try:
            yield from database.run(lambda session, this=this: plain_rows(session, table, *this))
        except (StoreAwayError, StoreFullError):
            raise
        except _DAMAGE as error:
            unread.append(Unread(table, key, _column_problem(database, table, this) or str(error)))


def _column_problem(
    database: Database, table: type[Base], this: Sequence[ColumnElement[bool]]
) -> str:
    """Return which column of a row cannot be read, and why; empty where each can be read alone."""
    for column in table.__table__.columns:
        query = select(column).where(*this)
        try:
            database.run(lambda session, query=query: list(session.scalars(query)))
        except (StoreAwayError, StoreFullError):
            raise
        except _DAMAGE as error:
            return f"its {column.key} cannot be read: {' '.join(str(error).split())}"
    return ""


@cache
def _key_of(table: type[Base]) -> tuple[ColumnElement[Any], ...]:
    return tuple(inspect(table).primary_key)


@cache
def _forms(table: type[Base]) -> tuple[tuple[str, bool, tuple[type, ...], str], ...]:
    """Return name, whether NULL is allowed, Python types and their name for each column."""
    found: list[tuple[str, bool, tuple[type, ...], str]] = []
    for column in table.__table__.columns:
        types, word = next(
            (one[1:] for one in _TYPES if isinstance(column.type, one[0])), ((str,), "text")
        )
        if column.key in _LISTS:
            types, word = (list,), "list"
        found.append((column.key, bool(column.nullable), types, word))
    return tuple(found)


def _row_problem(table: type[Base], row: Mapping[str, Any]) -> str:
    """Return which value does not have its column's type; empty where all do."""
    for name, is_optional, types, word in _forms(table):
        value = row[name]
        if value is None:
            if not is_optional:
                return f"its {name} cannot be read: it is missing"
        elif not isinstance(value, types):
            return f"its {name} cannot be read: expected {word}, found {type(value).__name__}"
        elif not _has_form(name, value):
            return _malformed(name)
    return ""


def _malformed(name: str) -> str:
    return f"its {name} cannot be read: it is malformed"


def _has_form(name: str, value: object) -> bool:
    """Return whether a column that names images is well-formed; True for any other column."""
    if name == "images":
        return isinstance(value, list) and all(isinstance(one, str) for one in cast("Any", value))
    if name == "opening":
        return isinstance(value, list) and all(_is_message(one) for one in cast("Any", value))
    return name != "reply" or _is_message(value)


def _is_message(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    parts = cast("Mapping[str, Any]", value).get("parts")
    return isinstance(parts, list) and all(_is_part(one) for one in cast("list[Any]", parts))


def _is_part(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    part = cast("Mapping[str, Any]", value)
    return isinstance(part.get("image" if "image" in part else "text"), str)
