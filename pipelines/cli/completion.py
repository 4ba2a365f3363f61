"""Shell completion: presets, suites, run ids, backends, policies.

It runs at every TAB: nothing heavy is imported, nothing is created, and no error is shown; if
something cannot be read, nothing is offered.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

Offer = Callable[[str], list[str]]

BACKENDS = ("local", "docker")
DIFFICULTIES = ("easy", "medium", "hard")
REWARDS = ("outcome", "tool_bonus", "bat_sequence", "bat", "bat_paper")
POLICIES = ("nano", "oracle", "random")
GPUS = ("4090", "l40s", "a100", "h100", "h200", "b200")
DATA_SETS = ("nuclei_count", "nlvr_dev")
NEWEST = 50
"""Maximum number of runs offered."""


def presets(incomplete: str) -> list[str]:
    """Offer the presets of flows.yaml."""
    import yaml

    own = Path("flows.yaml")
    path = own if own.is_file() else Path(__file__).parents[1] / "config" / "flows.yaml"
    with contextlib.suppress(OSError, yaml.YAMLError, AttributeError):
        found = yaml.safe_load(path.read_text(encoding="utf-8"))["presets"]
        return _beginning(found, incomplete)
    return []


def suites(incomplete: str) -> list[str]:
    """Offer the named suites, and files of tasks."""
    return _beginning(("nano", *DATA_SETS), incomplete) + _files(incomplete, (".jsonl", ".py"))


def runs(incomplete: str) -> list[str]:
    """Offer the newest runs of the store, ``latest`` first."""
    return _beginning(("latest", *_run_ids()), incomplete)


def policies(incomplete: str) -> list[str]:
    """Offer the named policies, and checkpoint folders."""
    return _beginning(POLICIES, incomplete) + _folders(incomplete)


def players(incomplete: str) -> list[str]:
    """Offer the policies that can play an episode, including ``hand``."""
    return _beginning(("hand", *POLICIES), incomplete) + _folders(incomplete)


def families(incomplete: str) -> list[str]:
    """Offer the families of the nano suite."""
    from ...envs.suites.nano.suite import FAMILIES

    return _beginning(FAMILIES, incomplete)


def one_of(*words: str) -> Offer:
    """Return a function that offers these words."""
    return lambda incomplete: _beginning(words, incomplete)


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def _run_ids() -> list[str]:
    """Read the run ids from the SQLite store, without creating it; other stores offer none."""
    url = os.environ.get("CODEDANCE_STORE_URL", "")
    folder = Path(os.environ.get("CODEDANCE_DIR") or ".codedance").expanduser()
    path = Path(url.removeprefix("sqlite:///")) if url else folder / "store.db"
    if not path.is_file():
        return []
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)
        with contextlib.closing(connection):
            query = "SELECT id FROM lineage ORDER BY started_at DESC LIMIT ?"
            return [row[0] for row in connection.execute(query, (NEWEST,))]
    return []


def _files(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """Offer files with these suffixes, and folders."""
    return [
        f"{path}/" if path.is_dir() else str(path)
        for path in _entries(incomplete)
        if path.is_dir() or path.suffix in endings
    ]


def _folders(incomplete: str) -> list[str]:
    return [f"{path}/" for path in _entries(incomplete) if path.is_dir()]


def _entries(incomplete: str) -> Iterator[Path]:
    """Yield paths with the typed prefix; hidden names only if a dot was typed."""
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    beginning = "" if incomplete.endswith("/") else Path(incomplete).name
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            is_hidden = path.name.startswith(".") and not beginning.startswith(".")
            if path.name.startswith(beginning) and not is_hidden:
                yield path
