"""The trajectory store: tasks, trajectories, turns, executions, scores, lineage, pictures."""

from .connection.errors import StoreAwayError, StoreError, StoreFullError
from .connection.patience import Patience
from .episodes import Episode
from .lineage import Lineage, StageRun
from .store import Store, open_store

__all__ = [
    "Episode",
    "Lineage",
    "Patience",
    "StageRun",
    "Store",
    "StoreAwayError",
    "StoreError",
    "StoreFullError",
    "open_store",
]
