"""Alarms of a stage in a file of its folder, for reports."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

from ...policies.training.grpo.alarms import Alarm

FILE_NAME = "alarms.jsonl"


def append_alarm(folder: Path, alarm: Alarm) -> None:
    """Append an alarm; on a full disk it appears only in the log and in MLflow."""
    with contextlib.suppress(OSError), (folder / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(alarm)) + "\n")


def read_alarms(folder: Path) -> list[Alarm]:
    """Return the alarms by step; an alarm that a resumed run raised again appears once."""
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    found: dict[tuple[int, str], Alarm] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            alarm = Alarm(**json.loads(line))
        except (ValueError, TypeError):  # a line cut short by a full disk or a kill
            continue
        found[alarm.step, alarm.name] = alarm
    return [found[key] for key in sorted(found)]
