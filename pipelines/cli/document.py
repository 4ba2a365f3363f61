"""``--json``: exactly one JSON document on standard output, everything else on standard error."""

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
"""Sets the content of the document; without ``--json`` it does nothing."""


@contextlib.contextmanager
def document(is_wanted: bool) -> Generator[Publish]:
    """Reserve standard output for one document within the context.

    With ``--json`` all other output goes to standard error, and the content published last is
    printed at the end. An error leaves standard output empty, unless something was published
    before it.
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


def as_plain(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """Convert dataclasses, paths, times and NaN to JSON values.

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
