"""The MLflow that runs are shown in: its address, experiment and run."""

from __future__ import annotations

import os
from dataclasses import dataclass

EXPERIMENT = "codedance"
"""Name of the experiment, unless another one is named."""
RUN_TAG = "codedance.run"
"""Tag of an MLflow run with the id of our run."""


@dataclass(frozen=True, slots=True)
class Address:
    """An MLflow, and the place in it.

    Attributes:
        uri: Tracking address; may contain a password, and is therefore never written down.
        experiment: Name of the experiment; None for the default one.
        experiment_id: Id of the experiment, where it was given instead of the name.
        run_id: Given MLflow run to use as the pipeline run; None to create one.
    """

    uri: str
    experiment: str | None = None
    experiment_id: str | None = None
    run_id: str | None = None

    @property
    def is_embedded(self) -> bool:
        """Whether MLflow is a local file instead of a server."""
        return self.uri.startswith("sqlite:")

    @property
    def shown(self) -> str:
        """The tracking address for printing, without its password.

        >>> Address("https://me:secret@mlflow.example/x").shown
        'https://mlflow.example/x'
        """
        head, separator, rest = self.uri.partition("://")
        host, slash, path = rest.partition("/")
        return head + separator + host.rpartition("@")[2] + slash + path


def named_place() -> dict[str, str]:
    """Return the experiment and the run that MLflow's variables name, as fields of `Address`."""
    place = {
        "experiment": os.environ.get("MLFLOW_EXPERIMENT_NAME"),
        "experiment_id": os.environ.get("MLFLOW_EXPERIMENT_ID"),
        "run_id": os.environ.get("MLFLOW_RUN_ID"),
    }
    return {name: value for name, value in place.items() if value}
