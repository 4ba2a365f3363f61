"""MLflow's SQLite database, made whole or not at all.

MLflow lays a new database out in some sixty migrations over several seconds. A process that is
killed meanwhile leaves a file that MLflow refuses from then on, and the run's figures would wait in
the spool for ever. So the file is made under another name and gets its own when it is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def make_database(uri: str) -> None:
    """Make the database behind a tracking address where it is a SQLite file that is not there yet.

    Args:
        uri: MLflow's tracking address; of any other kind than ``sqlite:///PATH`` nothing is done.

    Raises:
        OSError: The folder cannot be written.
    """
    path = _file_behind(uri)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        for left in path.parent.glob(f"{path.name}.new-*"):  # by one that was killed
            left.unlink()
        _lay_out(path)


def _file_behind(uri: str) -> Path | None:
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    named = make_url(uri).database
    return Path(named) if named and named != ":memory:" else None


def _lay_out(path: Path) -> None:
    import mlflow

    making = path.with_name(f"{path.name}.new-{os.getpid()}")
    mlflow.MlflowClient(f"sqlite:///{making}").search_experiments(max_results=1)
    with contextlib.suppress(FileExistsError):  # a server of the user's was quicker
        os.link(making, path)
    making.unlink()
