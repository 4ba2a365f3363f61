"""SQLite's journal: a write-ahead log on a local disk, a rollback journal over a network.

The write-ahead log needs memory-mapped files that all processes share: over NFS, CIFS, 9p, FUSE,
virtiofs and the like it loses rows or fails. A rollback journal works there, but each commit waits
for the disk, and readers wait for writers.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from .errors import VARIABLE, StoreError
from .mounts import MOUNTS, file_system, is_network

_LOGGED = 2
"""Value of bytes 18 and 19 of a database whose journal is the write-ahead log."""


@dataclass(frozen=True, slots=True)
class Journal:
    """Journal settings of a database.

    Attributes:
        mode: Value of SQLite's ``journal_mode``.
        synchronous: Value of ``synchronous``: how much a commit waits for the disk.
    """

    mode: str
    synchronous: str


LOG = Journal("WAL", "NORMAL")
ROLLBACK = Journal("DELETE", "FULL")


def choose_journal(url: URL, say: Callable[[str], None], mounts: Path = MOUNTS) -> Journal:
    """Return the journal that is safe on the database's file system; report an unusual one.

    Raises:
        StoreError: The database has a write-ahead log that another process uses.
    """
    path = url.database
    if not path or path == ":memory:":
        return LOG
    kind = file_system(Path(path), mounts)
    if not is_network(kind):
        return LOG
    say(
        f"{path} is on a network file system ({kind}), where SQLite's write-ahead log fails: "
        "it is written with a rollback journal, which is slower. Better: "
        f"{VARIABLE}=sqlite:////local/folder/store.db, or a PostgreSQL server"
    )
    _leave_log(Path(path))
    return ROLLBACK


def _leave_log(path: Path) -> None:
    """Checkpoint a database's log into it, without the shared memory that fails here."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(20)
        if len(head) < 20 or head[18] != _LOGGED:
            return
        _write_back(path)


def _write_back(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=5.0)) as connection:
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            mode = connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
        except sqlite3.OperationalError as error:
            mode = str(error)
    if mode != "delete":
        raise StoreError(
            f"{path} cannot leave the write-ahead log, which fails on this file system "
            f"({mode}): end the other processes that use it, then try again"
        )
