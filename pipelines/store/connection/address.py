"""Addresses of stores: an SQLite file or a PostgreSQL server."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from .errors import VARIABLE, StoreUsageError

DRIVER = "postgresql+psycopg"
EXAMPLE = "postgresql://user:password@host:5432/database"
_TIMES: dict[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Timeouts for an unreachable server, in seconds (the last in milliseconds)."""


def read_address(text: str) -> URL:
    """Parse an address that the user wrote; ``postgres://`` and the like mean psycopg 3.

    Raises:
        StoreUsageError: The text is not an address, or its kind of database is not supported.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise StoreUsageError(
            f"{VARIABLE} is not the address of a database: expected {EXAMPLE} or sqlite:////folder/file"
        ) from error
    kind = url.drivername.partition("+")[0]
    if kind in ("postgres", "postgresql"):
        return url.set(drivername=DRIVER)
    if kind == "sqlite":
        return url.set(drivername="sqlite")
    raise StoreUsageError(
        f"{VARIABLE} names a database of kind {kind!r}; the store works on SQLite "
        f"(sqlite:////folder/file) and PostgreSQL ({EXAMPLE})"
    )


def connect_options(url: URL) -> dict[str, int | str]:
    """Return additional options for the driver; the user's own query parameters take precedence."""
    if url.get_backend_name() == "sqlite":
        return {}
    own: dict[str, int | str] = {
        "application_name": "codedance",
        "client_encoding": "utf8",
        **_TIMES,
    }
    return {name: value for name, value in own.items() if name not in url.query}
