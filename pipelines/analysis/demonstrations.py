"""Trajectories of a curation that demonstrate its kept tasks in the cold start."""

from __future__ import annotations

from ..store.lineage import StageRun
from ..store.store import Store


def chosen_demonstrations(store: Store, curation: StageRun) -> dict[str, int]:
    """Return the id of the demonstration of each kept task, by task key."""
    kept = {row.task_key: row for row in store.curation(curation.id) if row.is_kept}
    chosen: dict[str, int] = {}
    for episode in store.episodes(curation.id):
        row = kept.get(episode.task_key)
        wanted = "strong" if row is not None and row.demonstration == "tools" else "direct"
        if row is not None and episode.phase == wanted and episode.accuracy == 1.0:
            chosen.setdefault(episode.task_key, episode.id)
    return chosen
