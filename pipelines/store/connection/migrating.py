"""Migrate a database's schema with Alembic, from any earlier version, in one transaction."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from ..schema import Base
from .errors import StoreError, shown_url

HEAD = "0005"
"""The newest migration; a test checks it against the folder."""

MIGRATIONS = Path(__file__).parents[1] / "migrations"
_LOCK = 0x0C0DEDA9CE
"""Key of the PostgreSQL advisory lock that a process holds while it migrates."""


def upgrade(engine: Engine, target: str = HEAD) -> None:
    """Apply the missing migrations, one process at a time.

    Raises:
        StoreError: The database was written by a newer CodeDance.
    """
    if schema_version(engine) == target:
        return
    with _only_one(engine), engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # else each statement commits by itself
        else:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        found = _version(connection)
        check_schema(engine, found)
        if found is None or found < target:
            _migrate(connection, target)


def check_schema(engine: Engine, found: str | None) -> None:
    """Refuse a schema that is newer than this code.

    Raises:
        StoreError: The schema is newer than `HEAD`.
    """
    if found is not None and found > HEAD:
        raise StoreError(
            f"the store at {shown_url(engine.url)} is at schema {found}, this CodeDance knows "
            f"{HEAD}: install a newer one, or name another store"
        )


def schema_version(engine: Engine) -> str | None:
    """Return the newest migration of a database; None where it has no store."""
    with engine.connect() as connection:
        return _version(connection)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _only_one(engine: Engine) -> Generator[None]:
    """Hold a file lock next to an SQLite database; a server is locked in the transaction."""
    path = engine.url.database
    if engine.dialect.name != "sqlite" or not path or path == ":memory:":
        yield
        return
    with Path(f"{path}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _migrate(connection: Connection, target: str) -> None:
    from alembic import command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["metadata"] = Base.metadata
    command.upgrade(config, target)
