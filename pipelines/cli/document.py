"""``--json``: exactly one JSON document on standard output, everything else on the other stream."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import sys
from collections.abc import Callable, Generator, Mapping, Sequence, Set
from datetime import datetime
from typing import Any, cast

Publish = Callable[[object], None]
"""Takes what the document is to hold; without ``--json`` it does nothing."""


@contextlib.contextmanager
def document(is_wanted: bool) -> Generator[Publish]:
    """Keep standard output for one document while the context lasts.

    With ``--json`` all that is printed meanwhile goes to standard error, and what was published
    last is printed at the end. An error leaves standard output empty, unless something had been
    published before it.
    """
    if not is_wanted:
        yield lambda _: None
        return
    published: list[object] = []
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield published.append
    finally:
        if published:
            text = json.dumps(as_plain(published[-1]), indent=2, allow_nan=False)
            print(text, flush=True)  # noqa: T201


def as_plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Turn dataclasses, paths, times and NaN into what JSON can say.

    >>> from pathlib import Path
    >>> as_plain({"share": float("nan"), ("greedy", "all"): Path("a/b")})
    {'share': None, 'greedy/all': 'a/b'}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, str | int | bool):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        items = cast(Mapping[object, object], value).items()
        return {_key(key): as_plain(part) for key, part in items}
    if isinstance(value, Sequence | Set):
        return [as_plain(part) for part in cast(Sequence[object], value)]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def _key(key: object) -> str:
    if isinstance(key, tuple):
        return "/".join(map(str, cast(tuple[object, ...], key)))
    return str(key)
