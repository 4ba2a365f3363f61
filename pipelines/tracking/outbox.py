"""The outbox on disk: files of events, each read by one sender at a time from its last offset."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Event = dict[str, Any]
ADDRESS = "address"
PATTERN = "*.jsonl"
REFUSED = ".refused"
"""Suffix of the file with the events that MLflow rejected."""


@dataclass(frozen=True, slots=True)
class Address:
    """The MLflow that an outbox file is for; fixed when the file is created, whoever sends it.

    Attributes:
        uri: Tracking address.
        experiment: Name of the experiment; None for the default one.
        experiment_id: Id of the experiment, where it was given instead of the name.
        run_id: Given MLflow run to use as the pipeline run; None to create one.
    """

    uri: str
    experiment: str | None = None
    experiment_id: str | None = None
    run_id: str | None = None

    @classmethod
    def of_environment(cls, uri: str, environment: Mapping[str, str] | None = None) -> Address:
        """Read MLflow's environment variables: experiment by name or id, and run."""
        found = os.environ if environment is None else environment
        return cls(
            uri,
            found.get("MLFLOW_EXPERIMENT_NAME") or None,
            found.get("MLFLOW_EXPERIMENT_ID") or None,
            found.get("MLFLOW_RUN_ID") or None,
        )

    @property
    def shown(self) -> str:
        """The tracking address for printing, without its password.

        >>> Address("https://me:secret@mlflow.example/x").shown
        'https://mlflow.example/x'
        """
        head, separator, rest = self.uri.partition("://")
        host, slash, path = rest.partition("/")
        return head + separator + host.rpartition("@")[2] + slash + path

    def as_event(self) -> Event:
        """Return the first line of an outbox file."""
        return {"kind": ADDRESS, "run": "", **asdict(self)}


class OutboxReader:
    """Reads an outbox file from the offset of the last sending, which is stored beside the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = path.with_suffix(".sent")
        self.offset = _offset(self._mark)

    def read(self, limit: int = 2000) -> list[tuple[Event, int]]:
        """Return up to ``limit`` unsent events, each with the offset after it."""
        events: list[tuple[Event, int]] = []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n") or len(events) >= limit:
                    break
                end = (events[-1][1] if events else self.offset) + len(line)
                events.append((parse(line), end))
        return events

    def mark(self, offset: int) -> None:
        """Record that everything before ``offset`` was sent; on a full disk the record is lost.

        Events that are then sent twice are recognized in MLflow, and not recorded twice.
        """
        self.offset = offset
        temporary = self._mark.with_suffix(".part")
        with contextlib.suppress(OSError):
            temporary.write_text(str(offset))
            os.replace(temporary, self._mark)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to send."""
        return not self.path.exists() or self.offset >= self.path.stat().st_size

    @property
    def address(self) -> Address | None:
        """The MLflow that the file is for; None if its first line does not name one."""
        with self.path.open("rb") as file:
            first = parse(file.readline())
        if first["kind"] != ADDRESS:
            return None
        return Address(
            first["uri"], first["experiment"], first.get("experiment_id"), first.get("run_id")
        )

    def remove(self) -> None:
        """Delete the file and its offset."""
        self.path.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)


@contextmanager
def claim(path: Path) -> Generator[bool]:
    """Lock an outbox file while its events are sent; yield False if another process has it.

    Its writer holds the lock while it lives, and after that one sender at a time.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield path.exists()


def outbox_files(folder: Path) -> list[Path]:
    """Return the outbox files, oldest first."""
    return sorted(folder.glob(PATTERN))


def remove_sent(folder: Path) -> None:
    """Delete the outbox files whose events have all been sent."""
    for path in outbox_files(folder):
        with claim(path) as is_idle:
            if is_idle and (reader := OutboxReader(path)).is_done:
                reader.remove()


def count_unsent(folder: Path, *, of_living: bool = True) -> int:
    """Return the number of events that wait to be sent, without addresses.

    Args:
        folder: Folder of the outbox.
        of_living: Include events whose writer is still running, and sends them itself.
    """
    count = 0
    for path in outbox_files(folder):
        with contextlib.suppress(FileNotFoundError), claim(path) as is_idle:
            if of_living or is_idle:
                count += _count(OutboxReader(path))
    return count


def _count(reader: OutboxReader) -> int:
    count = 0
    while events := reader.read():
        count += sum(event["kind"] != ADDRESS for event, _ in events)
        reader.offset = events[-1][1]
    return count


def keep_refused(path: Path, event: Event, reason: str) -> None:
    """Record an event that MLflow rejected beside the outbox file, with the reason."""
    with contextlib.suppress(OSError), path.with_suffix(REFUSED).open("a") as file:
        file.write(json.dumps({**event, "reason": reason}) + "\n")


def offer_again(folder: Path) -> int:
    """Return rejected events to the outbox, to be sent once more; return their number."""
    count = 0
    for path in sorted(folder.glob(f"*{REFUSED}")):
        lines = path.read_text(encoding="utf-8").splitlines()
        fresh = path.with_suffix(".again")
        fresh.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(fresh, folder / f"{path.stem}-again.jsonl")
        path.unlink()
        count += sum(parse(line.encode())["kind"] != ADDRESS for line in lines)
    return count


def parse(line: bytes) -> Event:
    """Parse a line; one that a full disk cut short becomes a ``broken`` event."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"kind": "broken", "run": ""}


def _offset(mark: Path) -> int:
    """Read the offset up to which a file was sent; 0 if a full disk damaged the record."""
    try:
        return int(mark.read_text())
    except (OSError, ValueError):
        return 0
