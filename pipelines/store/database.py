"""Opens the database: SQLite with WAL by default, any other by URL; its schema kept by Alembic."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from .images import FULL, StoreError, StoreFullError
from .schema import Base

HEAD = "0001"
"""The newest migration; `tests/pipelines/test_store.py` checks it against the folder."""

MIGRATIONS = Path(__file__).with_name("migrations")


def open_engine(url: str) -> Engine:
    """Connect, and bring the schema up to date.

    Raises:
        StoreError: The database cannot be opened, or was written by a newer CodeDance.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    try:
        with translated_errors(url):
            upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def upgrade(engine: Engine) -> None:
    """Apply the migrations that the database lacks; one process at a time."""
    if _version(engine) == HEAD:
        return
    with _only_one(engine):
        found = _version(engine)
        if found is not None and found > HEAD:
            raise StoreError(
                f"the store is at schema {found}, this CodeDance knows {HEAD}: install a newer one"
            )
        if found != HEAD:
            _run_migrations(engine)


@contextmanager
def transaction(engine: Engine) -> Generator[Session]:
    """Give a session whose writes all hold or none do, errors told in our words."""
    with translated_errors(str(engine.url)), Session(engine) as session, session.begin():
        yield session


@contextmanager
def translated_errors(place: str) -> Generator[None]:
    """Turn the database's errors into `StoreError`, a full disk into `StoreFullError`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StoreFullError(place) from error
        raise
    except DBAPIError as error:
        reason = str(error.orig)
        if "is full" in reason or "No space left" in reason or "disk I/O" in reason:
            raise StoreFullError(place) from error
        raise StoreError(f"the store at {place} failed: {reason}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"the store at {place} failed: {error}") from error


def _prepare_sqlite(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        "busy_timeout=30000",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _version(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _only_one(engine: Engine) -> Generator[None]:
    """Hold a file lock beside an SQLite database; other servers serialise migrations themselves."""
    path = engine.url.database
    if engine.dialect.name != "sqlite" or not path:
        yield
        return
    with Path(f"{path}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _run_migrations(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        config.attributes["metadata"] = Base.metadata
        command.upgrade(config, "head")
