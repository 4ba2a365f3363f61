"""Errors of the store, with messages that say what to change.

StoreError          the store could not be read or written
├─ StoreFullError   no space is left
├─ StoreUsageError  the request is invalid
└─ StoreAwayError   the database does not answer: a retry may succeed
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
VARIABLE = "CODEDANCE_STORE_URL"
_OS_ERROR_FULL = re.compile(rf"os error (?:{'|'.join(map(str, sorted(FULL)))})\b")

_AWAY_STATES = ("08", "57P", "53300", "25006")
"""SQLSTATE: connection lost, server stopping or starting, too many connections, a standby."""

_CLASH_STATES = ("40001", "40P01", "23505", "55P03", "25P03")
"""SQLSTATE: not serializable, deadlock, duplicate row, lock not available, idle for too long."""

_REMEDIES = {
    "password authentication failed|no password supplied": (
        f"User or password is wrong: correct them in {VARIABLE} (characters such as @ and / as %40 "
        "and %2F), or give the password as PGPASSWORD or in ~/.pgpass"
    ),
    'role ".*" does not exist': (
        f"There is no such user: correct {VARIABLE}, or create it with createuser"
    ),
    'database ".*" does not exist': (
        f"There is no such database: correct {VARIABLE}, or create it with createdb"
    ),
    "permission denied|must be owner": (
        "The user lacks the privilege: make it the owner of the database, or "
        "GRANT USAGE, CREATE ON SCHEMA public TO the user"
    ),
    "no pg_hba.conf entry": (
        "The server refuses this user from this host: add a line to its pg_hba.conf"
    ),
    "failed to resolve|could not translate host name|Name or service not known": (
        f"The host name cannot be resolved: correct {VARIABLE}"
    ),
    "Connection refused|No such file|timed out|timeout expired|unreachable|No route": (
        f"Nothing answers there: start the server, or correct host and port in {VARIABLE}"
    ),
    "too many clients|remaining connection slots": (
        "The server has no connection left: raise its max_connections"
    ),
    "starting up|shutting down": "The server is starting or stopping: try again in a moment",
    "unable to open database file": (
        f"Create its folder, or name another file in {VARIABLE} or another folder in CODEDANCE_DIR"
    ),
    "readonly database": "The file is not writable: change its owner or its permissions",
    "not a database|malformed": (
        "The file is damaged: replace it with a backup, or recover what is left with "
        "`sqlite3 FILE .recover`"
    ),
    "database is locked": (
        "Another process holds its lock: end that process, or use PostgreSQL for many writers"
    ),
}


class StoreError(RuntimeError):
    """The store could not be read or written; what was written before is intact."""


class StoreFullError(StoreError):
    """No space is left. Nothing is half written: after freeing space, the same command resumes."""

    def __init__(self, place: Path | str) -> None:
        super().__init__(
            f"no space left to write in {place}; nothing is lost and nothing is half written: free "
            "some (or move CODEDANCE_DIR to a larger disk), then run the same command again"
        )


class StoreUsageError(StoreError):
    """The request is invalid; the message says what is possible."""


class StoreAwayError(StoreError):
    """The database does not answer."""


def shown_url(url: URL) -> str:
    """Return a database's address without its password."""
    return url.render_as_string(hide_password=True)


def translate(error: SQLAlchemyError, url: URL) -> StoreError:
    """Return a store error for a database error: what happened where, and what to change."""
    place = shown_url(url)
    if not isinstance(error, DBAPIError):
        return StoreError(f"the store at {place} failed: {error}")
    reason = " ".join(str(error.orig).split())
    if is_full(error):
        return StoreFullError(place)
    kind = StoreAwayError if is_away(error) else StoreError
    return kind(f"the store at {place} failed: {reason}{_remedy(reason)}")


def is_away(error: DBAPIError) -> bool:
    """Return whether the database was unreachable or the connection was lost."""
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return _state(error).startswith(_AWAY_STATES)
    if _is_sqlite(error):
        return "database is locked" in str(error.orig)
    state = _state(error)
    return not state or state.startswith(_AWAY_STATES)


def is_clash(error: DBAPIError) -> bool:
    """Return whether the error is a conflict with another writer: a retry can succeed."""
    return _state(error).startswith(_CLASH_STATES) or "UNIQUE constraint" in str(error.orig)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or one that it followed, says that no space is left.

    Libraries that write checkpoints wrap the system's error in their own, or mention its number.

    >>> is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    True
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        if _OS_ERROR_FULL.search(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def is_full(error: DBAPIError) -> bool:
    """Return whether no space was left."""
    reason = str(error.orig)
    phrases = ("is full", "No space left", "disk I/O")
    return _state(error) == "53100" or any(words in reason for words in phrases)


def _state(error: DBAPIError) -> str:
    """Return the five characters of SQLSTATE; empty without one."""
    return str(getattr(error.orig, "sqlstate", None) or "")


def _is_sqlite(error: DBAPIError) -> bool:
    return type(error.orig).__module__ == "sqlite3"


def _remedy(reason: str) -> str:
    for pattern, remedy in _REMEDIES.items():
        if re.search(pattern, reason):
            return f"{' ' if reason.endswith(('.', '?')) else '. '}{remedy}"
    return ""
