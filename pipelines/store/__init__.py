"""The trajectory store: tasks, trajectories, turns, executions, scores, lineage, pictures."""

from .images import StoreError, StoreFullError
from .lineage import Lineage, StageRun
from .store import Episode, Store, open_store

__all__ = [
    "Episode",
    "Lineage",
    "StageRun",
    "Store",
    "StoreError",
    "StoreFullError",
    "open_store",
]
