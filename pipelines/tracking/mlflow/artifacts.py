"""Uploads files as artifacts of an MLflow run."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient

from ...viewer.page import VIEWER_NAMES, place_viewer
from ...viewer.shards import SHARD_SUFFIX
from .address import Address
from .runs import KnownRun


def upload(client: MlflowClient, address: Address, run: KnownRun, path: Path, folder: str) -> None:
    """Upload a file to a run, replacing an older one of that name.

    The viewer's shards are the bulk of a run, and are never changed in place: embedded MLflow gets
    hard links to them. The viewer's page gets their address on MLflow's server.

    Raises:
        LookupError: The file does not exist any more.
    """
    if not path.is_file():
        raise LookupError(f"{path} is gone")
    is_local = address.is_embedded and run.artifacts.startswith(("file:", "/"))
    if path.suffix == SHARD_SUFFIX and is_local:
        place = Path(unquote(urlparse(run.artifacts).path)) / folder / path.name
        with contextlib.suppress(OSError):  # on another disk: it is copied
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            os.link(path, place)
            return
    with tempfile.TemporaryDirectory() as copies:
        if path.name.startswith(VIEWER_NAMES) and path.suffix == ".html":
            path = Path(shutil.copyfile(path, Path(copies, path.name)))
            prefix = urlparse(address.uri).path if address.uri.startswith("http") else ""
            place_viewer(path, run_id=run.id, folder=folder, prefix=prefix.rstrip("/"))
        client.log_artifact(run.id, str(path), folder or None)
