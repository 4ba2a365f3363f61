"""Uploads files as artifacts of an MLflow run."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from ...viewer.page import VIEWER_NAMES, place_viewer
from ...viewer.shards import SHARD_SUFFIX
from .address import Address
from .runs import KnownRun

if TYPE_CHECKING:
    from mlflow import MlflowClient


class ArtifactUploader:
    """Copies files to the artifact location of a run.

    The viewer's shards are the bulk of a run, and are never changed in place: where MLflow stores
    its files on the same disk they are hard-linked instead of copied.
    """

    def __init__(self, client: MlflowClient, address: Address) -> None:
        self._client = client
        self._address = address

    def add(self, run: KnownRun, path: Path, folder: str) -> None:
        """Upload a file to a run, replacing an older one of that name.

        Raises:
            LookupError: The file does not exist any more.
        """
        if not path.is_file():
            raise LookupError(f"{path} is gone")
        if path.name.startswith(VIEWER_NAMES) and path.suffix == ".html":
            self._add_viewer(run, path, folder)
        elif path.suffix != SHARD_SUFFIX or not self._link(run, path, folder):
            self._client.log_artifact(run.id, str(path), folder or None)

    def _add_viewer(self, run: KnownRun, path: Path, folder: str) -> None:
        """Upload a viewer page with the address of its shards on MLflow's server."""
        prefix = urlparse(self._address.uri).path if self._address.uri.startswith("http") else ""
        with tempfile.TemporaryDirectory() as place:
            copy = Path(place) / path.name
            shutil.copyfile(path, copy)
            place_viewer(copy, run_id=run.id, folder=folder, prefix=prefix.rstrip("/"))
            self._client.log_artifact(run.id, str(copy), folder or None)

    def _link(self, run: KnownRun, path: Path, folder: str) -> bool:
        """Hard-link the file; return False if that is not possible."""
        if not (self._address.is_embedded and run.artifacts.startswith(("file:", "/"))):
            return False
        place = Path(unquote(urlparse(run.artifacts).path)) / folder / path.name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            os.link(path, place)
        except OSError:
            return False
        return True
