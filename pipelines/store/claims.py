"""Claims of work in the database: two processes, on any machines, never do one stage run twice.

A claim is a lease that its holder renews and that expires by the database's clock. Each time that
work is claimed its token grows by one. While a process holds a claim, every transaction in which it
writes checks, as its last act, that the token is still its own: a process that was only slow,
and whose work another has taken over meanwhile, writes nothing more.

Any number of processes may work for one pipeline run: each has a lease of its own there, which
excludes nobody and fences nothing (`working_for`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Float, delete, func, literal, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from ..concurrency.background import repeated
from .connection.database import Database, insert_missing
from .connection.errors import StoreError
from .schema import ClaimRow

LEASE_SECONDS = 30.0
RENEW_SECONDS = 10.0
LOOK_SECONDS = 0.2
"""Time between two attempts to claim work that is done in a moment."""
_WORKERS = "pipeline"
"""Beginning of the names of leases of pipeline runs; no stage can be called so."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ClaimLostError(StoreError):
    """Another process has taken over the work: this one writes nothing more of it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a claim.

    Attributes:
        host: The machine since its last boot, and the process-id namespace of the process.
        pid: Process id in that namespace.
        begun: Start time of the process, in the kernel's ticks.
        name: Name of the machine, for messages.
    """

    host: str
    pid: int
    begun: int
    name: str

    @classmethod
    def of_this_process(cls) -> Holder:
        """Return this process."""
        return cls(this_host(), os.getpid(), _begun(os.getpid()) or 0, os.uname().nodename)

    def is_gone(self) -> bool:
        """Whether the process ran where this one runs, and has certainly ended."""
        if self.host != this_host() or not self.begun:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it lives, or its id is that of another user's process
            pass
        begun = _begun(self.pid)
        return begun is not None and begun != self.begun

    def __str__(self) -> str:
        return f"process {self.pid} on {self.name}"


class Claim:
    """A claim that this process holds; its thread renews it.

    Args:
        database: Database with the claims.
        work: Name of the work.
        token: Number of times that the work was claimed, this one included.
        sure_until: Time until which no other process can have it, by `_clock`.
    """

    def __init__(self, database: Database, work: str, token: int, sure_until: float) -> None:
        self.work = work
        self.token = token
        self._database = database
        self._sure_until = sure_until

    def check(self) -> None:
        """Make sure that the work is still this process's, before a file of it is written.

        Costs nothing while the lease is fresh; the database is queried only after that.

        Raises:
            ClaimLostError: Another process has taken over the work.
        """
        if _clock() >= self._sure_until and not self.renew():
            raise _lost(self.work)

    def check_in(self, session: Session) -> None:
        """Make sure, within a transaction that writes, that the work is still this process's.

        Raises:
            ClaimLostError: Another process has taken over the work: the transaction is undone.
        """
        query = select(ClaimRow.token).where(ClaimRow.work == self.work).with_for_update(read=True)
        if session.execute(query).scalar() != self.token:
            raise _lost(self.work)

    def renew(self) -> bool:
        """Extend the lease; return False where another process has taken over the work."""
        asked_at = _clock()
        if not self._set_expiry(_now(self._database) + LEASE_SECONDS):
            return False
        self._sure_until = asked_at + LEASE_SECONDS
        return True

    def release(self) -> None:
        """Let the next process have the work at once."""
        self._set_expiry(literal(0.0))

    def _set_expiry(self, moment: ColumnElement[float]) -> bool:
        """Set the end of the lease; return False where the work is no longer this process's."""
        ours = (ClaimRow.work == self.work) & (ClaimRow.token == self.token)

        def work(session: Session) -> bool:
            session.execute(update(ClaimRow).where(ours).values(expires_at=moment))
            return session.execute(select(ClaimRow.token).where(ours)).scalar() is not None

        return self._database.run(work, is_fenced=False)


def try_claim(database: Database, work: str) -> Claim | Holder:
    """Claim work; return the claim, or the process that holds it."""
    me = Holder.of_this_process()
    named = {"host": me.host, "pid": me.pid, "begun": me.begun, "name": me.name}
    free = {**named, "work": work, "token": 0, "mark": "", "expires_at": 0.0}
    before = database.run(lambda session: _read(session, work), is_fenced=False)
    gone = before[0] if before is not None and before[2].is_gone() else None
    mark = uuid4().hex
    change = (
        update(ClaimRow)
        .where(ClaimRow.work == work)
        .where((ClaimRow.expires_at < _now(database)) | (ClaimRow.mark == gone))
        .values(
            **named,
            mark=mark,
            token=ClaimRow.token + 1,
            expires_at=_now(database) + LEASE_SECONDS,
        )
    )

    def take(session: Session) -> tuple[str, int, Holder] | None:
        insert_missing(session, ClaimRow, [free])
        session.execute(change)
        return _read(session, work)

    asked_at = _clock()
    found = database.run(take, is_fenced=False)
    if found is None or found[0] != mark:
        return me if found is None else found[2]
    return Claim(database, work, found[1], asked_at + LEASE_SECONDS)


def holder_of(database: Database, work: str) -> Holder | None:
    """Return the process that is doing a work now; None where its lease has ended, or it has."""
    query = select(ClaimRow).where(ClaimRow.work == work, ClaimRow.expires_at > _now(database))

    def read(session: Session) -> Holder | None:
        row = session.scalars(query).first()
        return None if row is None else _holder(row)

    found = database.run(read, is_fenced=False)
    return None if found is None or found.is_gone() else found


def _read(session: Session, work: str) -> tuple[str, int, Holder] | None:
    """Return mark, token and holder of a claim; None where there is none."""
    row = session.get(ClaimRow, work)
    if row is None:
        return None
    return row.mark, row.token, _holder(row)


def _holder(row: ClaimRow) -> Holder:
    return Holder(row.host, row.pid, row.begun, row.name)


@contextmanager
def held(database: Database, claim: Claim) -> Generator[Claim]:
    """Renew a claim, and fence every write of the database with it, while the context lasts."""
    try:
        with _renewed(claim), database.fenced(claim.check_in, claim.check):
            yield claim
    except ClaimLostError:
        raise
    except BaseException as error:
        if _is_lost(claim):  # the work was not this process's any more: it is no failure of it
            raise _lost(claim.work) from error
        raise
    finally:
        with suppress(StoreError):
            claim.release()


@contextmanager
def claimed(database: Database, work: str, *, check: Callable[[], None]) -> Generator[Claim]:
    """Hold the claim of work while the context lasts; wait while another process holds it.

    Args:
        database: Database with the claims.
        work: Name of the work.
        check: Called while waiting; an exception that it raises ends the wait.
    """
    while not isinstance(claim := try_claim(database, work), Claim):
        check()
        time.sleep(LOOK_SECONDS)
    with held(database, claim):
        yield claim


@contextmanager
def _renewed(claim: Claim) -> Generator[None]:
    def renew() -> None:
        with suppress(StoreError):  # away: it is renewed when the database answers
            claim.renew()

    with repeated(renew, every=RENEW_SECONDS, name="claim"):
        yield


def _is_lost(claim: Claim) -> bool:
    """Whether another process has taken over the work; False where the database is away."""
    try:
        return not claim.renew()
    except StoreError:
        return False


@contextmanager
def working_for(database: Database, pipeline: str) -> Generator[None]:
    """Record that this process works for a pipeline run, as others may, while the context lasts."""
    ended = _workers(pipeline), ClaimRow.expires_at < _now(database)
    database.run(lambda session: session.execute(delete(ClaimRow).where(*ended)))
    work = f"{_WORKERS} {pipeline} {uuid4().hex[:8]}"
    claim = try_claim(database, work)
    assert isinstance(claim, Claim)
    try:
        with _renewed(claim):
            yield
    finally:
        ours = delete(ClaimRow).where(ClaimRow.work == work)
        with suppress(StoreError):
            database.run(lambda session: session.execute(ours), is_fenced=False)


def has_workers(database: Database, session: Session, pipeline: str) -> bool:
    """Return whether a process works for a pipeline run, as seen within a transaction."""
    query = select(ClaimRow).where(_workers(pipeline), ClaimRow.expires_at > _now(database))
    return any(not _holder(row).is_gone() for row in session.scalars(query))


def _workers(pipeline: str) -> ColumnElement[bool]:
    return ClaimRow.work.startswith(f"{_WORKERS} {pipeline} ", autoescape=True)


def claimed_work(stage: str, key: str) -> str:
    """Return the name under which a stage run is claimed: equal keys mean equal work."""
    return f"{stage} {key}"


def this_host() -> str:
    """Return this machine since its last boot, with the namespace of its process ids."""
    boot = _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.is_file() else ""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{boot or os.uname().nodename} {namespace}"


def _begun(pid: int) -> int | None:
    """Return when a process began, in ticks since boot: 0 if it has ended, None if unknown."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = content.rpartition(")")[2].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])  # a zombie has ended


def _clock() -> float:
    """Return a clock that advances while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _now(database: Database) -> ColumnElement[float]:
    """Return the database's own time as an SQL expression, in seconds since 1970."""
    if database.is_sqlite:
        return (func.julianday("now") - 2440587.5) * 86400.0
    return func.extract("epoch", func.clock_timestamp()).cast(Float)


def _lost(work: str) -> ClaimLostError:
    return ClaimLostError(
        f"{work}: another process has taken it over, since this one did not answer for longer than "
        f"{LEASE_SECONDS:.0f} s; nothing more is written here, and the other continues"
    )
