"""A stage's alarms in a file of its own folder, for reports."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

from ...policies.training.grpo.alarms import Alarm

FILE_NAME = "alarms.jsonl"


def append_alarm(folder: Path, alarm: Alarm) -> None:
    """Add an alarm; on a full disk it stands in the log and in MLflow alone."""
    with contextlib.suppress(OSError), (folder / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(alarm)) + "\n")


def read_alarms(folder: Path) -> list[Alarm]:
    """Return the alarms by step; one that a resumed run raised again stands once."""
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
