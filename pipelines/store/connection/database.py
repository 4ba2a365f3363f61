"""The database of the store: opened with a current schema, and waited for when unreachable.

All work goes through `Database.run`: one transaction, which is retried from the start after a
conflict with another writer or a lost connection. Work may therefore run more than once and must
be idempotent.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import ORMExecuteState, Session

from ..schema import Base
from ..seals import seal_changed_runs
from .address import connect_options, read_address
from .errors import (
    FULL,
    VARIABLE,
    StoreError,
    StoreFullError,
    StoreUsageError,
    is_away,
    is_clash,
    shown_url,
    translate,
)
from .journal import Journal, choose_journal
from .migrating import check_schema, schema_version, upgrade
from .mounts import MOUNTS
from .patience import Patience

Result = TypeVar("Result")
Fence = Callable[[Session], None]
WRITES = "writes"
"""Key in a session's info: whether its transaction has written."""
Row = dict[str, Any]
CLASHES = 8
"""Largest number of retries because of other writers."""
BUSY_SECONDS = 30
"""Longest wait for another connection's lock on an SQLite file."""
IDLE_SECONDS = 30
"""Time after which a PostgreSQL server ends a transaction that has written and sends nothing more.

A process that is stopped, or whose machine is lost, blocks no other for longer: not longer than a
claim's lease lasts.
"""


class _Session(Session):
    """A session of the store, in which every change of a run's row renews its digest."""


def _allow() -> None:
    """Refuse nothing: no work is claimed."""


def _note_write(state: ORMExecuteState) -> None:
    """Note the first write of a transaction, and have a server bound how long it may be idle.

    Set per transaction: PgBouncer refuses it at the start of a connection. Transactions that only
    read block nobody, and may load images meanwhile.
    """
    if state.is_select or state.session.info.get(WRITES):
        return
    state.session.info[WRITES] = True
    connection = state.session.connection()
    if connection.dialect.name == "postgresql":
        limit = f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'"
        connection.exec_driver_sql(limit)


event.listen(_Session, "do_orm_execute", _note_write)
event.listen(_Session, "do_orm_execute", seal_changed_runs)


class Database:
    """A store's database; safe to share between threads.

    Args:
        engine: Connected engine with a current schema.
        patience: Longest wait for an unreachable server.
    """

    def __init__(self, engine: Engine, patience: Patience) -> None:
        self.engine = engine
        self._patience = patience
        self._fence: Fence | None = None
        self._guard: Callable[[], None] = _allow

    @property
    def address(self) -> str:
        """Address of the database, without the password."""
        return shown_url(self.engine.url)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is an SQLite file."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def fenced(self, fence: Fence, guard: Callable[[], None]) -> Generator[None]:
        """Have every transaction that writes end with a check, while the context lasts.

        Args:
            fence: Called with the session before it commits; an exception undoes the transaction.
            guard: What `check_guard` calls: the same check, without a transaction.
        """
        before = self._fence, self._guard
        self._fence, self._guard = fence, guard
        try:
            yield
        finally:
            self._fence, self._guard = before

    def check_guard(self) -> None:
        """Make sure, before a file is written, that a transaction here may still write.

        Raises:
            StoreError: It may not; the guard says why.
        """
        self._guard()

    def run(self, work: Callable[[Session], Result], *, is_fenced: bool = True) -> Result:
        """Run ``work`` in one transaction: all of its writes are committed, or none.

        Args:
            work: Called with the session, again after a conflict or a lost connection.
            is_fenced: Whether the check of `fenced` applies.

        Raises:
            StoreAwayError: The server stayed unreachable for longer than the patience.
            StoreFullError: No space is left.
            StoreError: The database refused the work for another reason.
        """
        clashes, wait = 0, self._patience.begin()
        while True:
            try:
                with _Session(self.engine) as session, session.begin():
                    result = work(session)
                    if is_fenced and self._fence is not None and session.info.get(WRITES):
                        self._fence(session)
            except DBAPIError as error:
                if is_clash(error) and clashes < CLASHES:
                    clashes += 1
                    time.sleep(random.uniform(0.0, 0.02 * clashes))
                elif not is_away(error) or not wait.again(self._translate(error)):
                    raise self._translate(error) from error
            except SQLAlchemyError as error:
                raise self._translate(error) from error
            except OSError as error:
                if error.errno in FULL:
                    raise StoreFullError(self.address) from error
                raise
            else:
                wait.end()
                return result

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def _translate(self, error: SQLAlchemyError) -> StoreError:
        return translate(error, self.engine.url)


def open_database(
    address: str, patience: Patience | None = None, *, mounts: Path = MOUNTS
) -> Database:
    """Connect and migrate the schema; a server that does not answer now is an error.

    Args:
        address: Address as the user wrote it.
        patience: Longest wait after the first connection; None for no wait.
        mounts: The kernel's list of mounts.

    Raises:
        StoreError: The database cannot be opened, or was written by a newer CodeDance.
    """
    patience = patience or Patience()
    with _connected(address) as engine:
        if engine.dialect.name == "sqlite":
            journal = choose_journal(engine.url, patience.say, mounts)
            event.listen(engine, "connect", partial(_prepare_sqlite, journal))
        else:
            _check_encoding(engine)
        upgrade(engine)
    return Database(engine, patience)


def find_schema(address: str) -> str | None:
    """Return the schema version of the store at an address, None without a store; read only.

    Raises:
        StoreError: The database cannot be reached, or has the schema of a newer CodeDance.
    """
    with _connected(address) as engine:
        found = schema_version(engine)
        check_schema(engine, found)
    engine.dispose()
    return found


@contextmanager
def _connected(address: str) -> Generator[Engine]:
    """Yield an engine; a database error in the context is translated, and any error closes it."""
    url = read_address(address)
    try:
        engine = create_engine(url, connect_args=connect_options(url))
    except (ValueError, TypeError) as error:
        raise StoreUsageError(f"{VARIABLE}: a parameter has an invalid value: {error}") from error
    except ImportError as error:
        raise StoreError(
            f"the store at {shown_url(url)} needs a driver that is not installed ({error}): "
            "pip install 'codedance[postgres]'"
        ) from error
    try:
        yield engine
    except SQLAlchemyError as error:
        engine.dispose()
        raise translate(error, url) from error
    except BaseException:
        engine.dispose()
        raise


def insert_missing(session: Session, table: type[Base], rows: Sequence[Row]) -> None:
    """Insert the rows whose key is not in the table yet, even if another writer adds it."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    insert = sqlite_dialect.insert if is_sqlite else postgresql.insert
    session.execute(insert(table).on_conflict_do_nothing(), list(rows))


def _prepare_sqlite(journal: Journal, connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={1000 * BUSY_SECONDS}")
    _set_journal(cursor, journal.mode)
    cursor.execute(f"PRAGMA synchronous={journal.synchronous}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _set_journal(cursor: DBAPICursor, mode: str) -> None:
    """Set the journal mode; SQLite's own timeout does not apply where two connections change it."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute(f"PRAGMA journal_mode={mode}")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.001, 0.02))
        else:
            return


def _check_encoding(engine: Engine) -> None:
    with engine.connect() as connection:
        found = connection.execute(text("SHOW server_encoding")).scalar()
    if found != "UTF8":
        raise StoreError(
            f"the database at {shown_url(engine.url)} has the encoding {found}, and models write "
            "any text: make one with `createdb --encoding UTF8 --template template0 NAME`"
        )
