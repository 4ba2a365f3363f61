"""Marks of commands that run flows, by which a later command notices those that were killed.

Without one, a command whose work is finished needs not start Prefect to look for runs to close.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from ..config.home import Home
from ..store.claims import Holder


@contextmanager
def command_mark(home: Home) -> Generator[None]:
    """Keep a file that names this process; it stays where the context is left by an error."""
    me = Holder.of_this_process()
    path = _folder(home) / f"{me.pid}-{me.begun}.json"
    with suppress(OSError):  # a full disk is reported by the stage
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(me)), encoding="utf-8")
    yield
    path.unlink(missing_ok=True)


def dead_marks(home: Home) -> list[Path]:
    """Return the files of commands of this host whose process is gone."""
    return [path for path in _folder(home).glob("*.json") if _is_dead(path)]


def _is_dead(path: Path) -> bool:
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8"))).is_gone()
    except FileNotFoundError:  # that command has just ended
        return False
    except (ValueError, TypeError):  # cut short by the kill
        return True


def _folder(home: Home) -> Path:
    return home.root / "commands"
