"""State of the files behind a model's name, without reading them: cheap, and without torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .endpoint import OPENAI_PREFIX

OWN_NAMES = frozenset({"nano", "oracle", "random", "thumbnail", "teacher"})
"""Policies that come with the package: its code version identifies them."""


def model_state(source: str) -> dict[str, str]:
    """Return the state that distinguishes a model from another of the same name.

    For a folder: size and modification time of every file; for a hub id: its commit on this
    machine; empty for the package's own policies and for models behind a server.
    """
    folder = Path(source)
    if folder.is_dir():
        return {
            path.relative_to(folder).as_posix(): f"{found.st_size} {found.st_mtime_ns}"
            for path in sorted(folder.rglob("*"))
            if path.is_file() and (found := path.stat())
        }
    if source in OWN_NAMES or source.startswith(OPENAI_PREFIX):
        return {}
    commit = hub_commit(source)
    return {"commit": commit} if commit else {}


def model_states(sources: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the state of each model that has one, by its parameter name."""
    states = {source: model_state(source) for source in sources}
    return {f"state of {source}": state for source, state in states.items() if state}


def hub_commit(name: str) -> str:
    """Return the commit of a hub id that this machine would load; empty where none is cached."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json")
    except ValueError:  # not a hub id
        return ""
    return Path(found).parent.name if isinstance(found, str) else ""
