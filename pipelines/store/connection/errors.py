"""What can go wrong with the store, in words that say what to change.

StoreError          the store could not be read or written
├─ StoreFullError   no room is left
└─ StoreAwayError   the database does not answer: trying again later may help
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
VARIABLE = "CODEDANCE_STORE_URL"

_AWAY_STATES = ("08", "57P", "53300", "25006")
"""Of SQL: connection lost, server stopping or starting, too many connections, a standby."""

_CLASH_STATES = ("40001", "40P01", "23505", "55P03")
"""Of SQL: not serialisable, deadlock, somebody stored the same row first, a lock was not had."""

_REMEDIES = {
    "password authentication failed|no password supplied": (
        f"User or password is wrong: mend them in {VARIABLE} (characters such as @ and / as %40 "
        "and %2F), or give the password as PGPASSWORD or in ~/.pgpass"
    ),
    'role ".*" does not exist': (
        f"There is no such user: mend {VARIABLE}, or make it with createuser"
    ),
    'database ".*" does not exist': (
        f"There is no such database: mend {VARIABLE}, or make it with createdb"
    ),
    "permission denied|must be owner": (
        "The user may not do that: let it own the database, or "
        "GRANT USAGE, CREATE ON SCHEMA public TO the user"
    ),
    "no pg_hba.conf entry": (
        "The server does not let this user come from here: add a line to its pg_hba.conf"
    ),
    "failed to resolve|could not translate host name|Name or service not known": (
        f"The host's name is not known: mend {VARIABLE}"
    ),
    "Connection refused|No such file|timed out|timeout expired|unreachable|No route": (
        f"Nothing answers there: start the server, or mend host and port in {VARIABLE}"
    ),
    "too many clients|remaining connection slots": (
        "The server has no connection left: raise its max_connections"
    ),
    "starting up|shutting down": "The server is starting or stopping: try again in a moment",
    "unable to open database file": (
        f"Make its folder, or name another file in {VARIABLE} or another folder in CODEDANCE_DIR"
    ),
    "readonly database": "The file may not be written: change its owner or its rights",
    "not a database|malformed": (
        "The file is damaged: put a copy in its place, or save what is left with "
        "`sqlite3 FILE .recover`"
    ),
    "database is locked": (
        "Another process keeps it locked: end that, or use PostgreSQL for many writers"
    ),
}


class StoreError(RuntimeError):
    """The store could not be read or written; what was written before is intact."""


class StoreFullError(StoreError):
    """No room is left. Nothing was half written: after making room, the same command goes on."""

    def __init__(self, place: Path | str) -> None:
        super().__init__(
            f"no room left to write in {place}; nothing is lost and nothing is half written: make "
            "room (or move CODEDANCE_DIR to a larger disk), then give the same command again"
        )


class StoreUsageError(StoreError):
    """What was asked for cannot be done; the message says what can."""


class StoreAwayError(StoreError):
    """The database does not answer now."""


def shown_url(url: URL) -> str:
    """Return a database's address without its password."""
    return url.render_as_string(hide_password=True)


def translate(error: SQLAlchemyError, url: URL) -> StoreError:
    """Return the error in our words: what happened where, and what to change."""
    place = shown_url(url)
    if not isinstance(error, DBAPIError):
        return StoreError(f"the store at {place} failed: {error}")
    reason = " ".join(str(error.orig).split())
    if is_full(error):
        return StoreFullError(place)
    kind = StoreAwayError if is_away(error) else StoreError
    return kind(f"the store at {place} failed: {reason}{_remedy(reason)}")


def is_away(error: DBAPIError) -> bool:
    """Whether the database could not be reached, or left in the middle."""
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return _state(error).startswith(_AWAY_STATES)
    if _is_sqlite(error):
        return "database is locked" in str(error.orig)
    state = _state(error)
    return not state or state.startswith(_AWAY_STATES)


def is_clash(error: DBAPIError) -> bool:
    """Whether another writer came in between: the same work, begun again, can succeed."""
    return _state(error).startswith(_CLASH_STATES) or "UNIQUE constraint" in str(error.orig)


def is_full(error: DBAPIError) -> bool:
    """Whether there was no room."""
    reason = str(error.orig)
    told = ("is full", "No space left", "disk I/O")
    return _state(error) == "53100" or any(words in reason for words in told)


def _state(error: DBAPIError) -> str:
    """Return the five letters of SQLSTATE; empty where the database told none."""
    return str(getattr(error.orig, "sqlstate", None) or "")


def _is_sqlite(error: DBAPIError) -> bool:
    return type(error.orig).__module__ == "sqlite3"


def _remedy(reason: str) -> str:
    for pattern, remedy in _REMEDIES.items():
        if re.search(pattern, reason):
            return f"{' ' if reason.endswith(('.', '?')) else '. '}{remedy}"
    return ""
