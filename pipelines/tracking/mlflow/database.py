"""MLflow's SQLite database, created atomically.

MLflow initializes a new database by some sixty migrations over several seconds. A process that is
killed meanwhile leaves a file that MLflow refuses from then on. The file is therefore created under
another name and renamed when complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from sqlalchemy.engine import make_url


def make_database(uri: str) -> None:
    """Create the database of a tracking address if it is a SQLite file that does not exist yet.

    Args:
        uri: MLflow's tracking address; any other kind than ``sqlite:///PATH`` is ignored.

    Raises:
        OSError: The folder cannot be written.
    """
    name = make_url(uri).database if uri.startswith("sqlite") else None
    if not name or name == ":memory:" or (path := Path(name)).exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        import mlflow  # seconds, and it reads the environment

        for left in path.parent.glob(f"{path.name}.new-*"):  # by a process that was killed
            left.unlink()
        making = path.with_name(f"{path.name}.new-{os.getpid()}")
        mlflow.MlflowClient(f"sqlite:///{making}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # a server of the user was faster
            os.link(making, path)
        making.unlink()
