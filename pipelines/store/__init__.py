"""The trajectory store: tasks, trajectories, turns, executions, scores, lineage, pictures."""

from .episodes import Episode
from .errors import StoreAwayError, StoreError, StoreFullError
from .lineage import Lineage, StageRun
from .patience import Patience
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
