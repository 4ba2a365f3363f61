"""Reads ``/proc``: the descendants of a process, and the memory of each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def descendants(process_id: int) -> Iterator[int]:
    """Yield the ids of all descendants of a process."""
    for children in Path(f"/proc/{process_id}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield int(child)
                yield from descendants(int(child))


def memory_of(process_id: int) -> tuple[float, float, float]:
    """Return private, page table and proportional memory in MB.

    Raises:
        OSError: The process is gone, or may not be read.
        KeyError: The kernel does not report a value.
    """
    rollup = _kilobytes(Path(f"/proc/{process_id}/smaps_rollup"))
    status = _kilobytes(Path(f"/proc/{process_id}/status"))
    private = rollup["Private_Dirty"]
    return private / 1024, status["VmPTE"] / 1024, rollup["Pss"] / 1024


def tree_memory(process_id: int) -> float | None:
    """Return the memory of a process and its descendants in MB: PSS and page tables.

    Shared pages are counted once. None if one of the processes may not be read.
    """
    total = 0.0
    for each in (process_id, *descendants(process_id)):
        try:
            _, tables, proportional = memory_of(each)
        except (FileNotFoundError, ProcessLookupError):
            continue
        except (OSError, KeyError):
            return None
        total += tables + proportional
    return total


def available_mb() -> float:
    """Return the available memory of the machine, in MB."""
    return _kilobytes(Path("/proc/meminfo"))["MemAvailable"] / 1024


def _kilobytes(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith("kB"):
            found[name] = int(value.split()[0])
    return found
