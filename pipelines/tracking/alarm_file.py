"""Alarms of a stage in a file of its folder, for reports."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path

from ...policies.training.grpo.alarms import Alarm
from .lines import append_line, read_lines

FILE_NAME = "alarms.jsonl"


def append_alarm(folder: Path, alarm: Alarm) -> None:
    """Append an alarm; on a full disk it appears only in the log."""
    with contextlib.suppress(OSError):
        append_line(folder / FILE_NAME, asdict(alarm))


def read_alarms(folder: Path) -> list[Alarm]:
    """Return the alarms by step; an alarm that a resumed run raised again appears once."""
    found: dict[tuple[int, str], Alarm] = {}
    for line in read_lines(folder / FILE_NAME):
        with contextlib.suppress(TypeError):
            alarm = Alarm(**line)
            found[alarm.step, alarm.name] = alarm
    return [found[key] for key in sorted(found)]
