"""The folder with all of CodeDance's state: ``CODEDANCE_DIR``.

The environment variables of embedded MLflow and Prefect are set here only, before either is
imported: telemetry off, home folders inside ``CODEDANCE_DIR``, servers on 127.0.0.1.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PREFECT_PORT = 14200
MLFLOW_PORT = 15000
LEASES = "prefect.server.concurrency.lease_storage.filesystem"


@dataclass(frozen=True, slots=True)
class Home:
    """The state folder and the paths in it."""

    root: Path

    @property
    def store_url(self) -> str:
        """URL of the trajectory store: ``CODEDANCE_STORE_URL``, or a file in the folder."""
        return os.environ.get("CODEDANCE_STORE_URL") or f"sqlite:///{self.root / 'store.db'}"

    @property
    def store_wait_seconds(self) -> float:
        """Longest wait for an unreachable store: ``CODEDANCE_STORE_WAIT``, 600 by default.

        Raises:
            ValueError: The variable is not a number of seconds.
        """
        value = os.environ.get("CODEDANCE_STORE_WAIT") or "600"
        try:
            return float(value)
        except ValueError:
            raise ValueError(
                f"CODEDANCE_STORE_WAIT must be a number of seconds, such as 600, not {value!r}"
            ) from None

    @property
    def images(self) -> Path:
        """Folder of content-addressed images: ``CODEDANCE_IMAGES`` (to share it), or ``images``."""
        named = os.environ.get("CODEDANCE_IMAGES")
        return Path(named).expanduser().resolve() if named else self.root / "images"

    @property
    def stages(self) -> Path:
        """Folder with a folder per run: ``CODEDANCE_STAGES`` (to share it), or ``stages``.

        A stage run's folder holds its metrics, its state and its checkpoint.
        """
        named = os.environ.get("CODEDANCE_STAGES")
        return Path(named).expanduser().resolve() if named else self.root / "stages"

    @property
    def reports(self) -> Path:
        """One folder per pipeline run: its report."""
        return self.root / "reports"

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking URI."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Artifact folder of embedded MLflow."""
        return self.root / "mlartifacts"

    @property
    def prefect(self) -> Path:
        """Prefect's home folder: its database and results."""
        return self.root / "prefect"


class HomeError(RuntimeError):
    """The folder is not writable; the message names it and says what to change."""


def find_home(root: Path | str | None = None, *, make: bool = True) -> Home:
    """Return the state folder: ``root``, else ``CODEDANCE_DIR``, else ``.codedance``.

    Args:
        root: Path that takes precedence over the environment; None to use the environment.
        make: Whether to create the folder and check that it is writable.

    Raises:
        HomeError: ``make`` is true and the folder is not writable.
    """
    named = root or os.environ.get("CODEDANCE_DIR") or ".codedance"
    home = Home(Path(named).expanduser().resolve())
    if make:
        check_writable(home.root)
    return home


def check_writable(folder: Path) -> None:
    """Create the state folder if it is missing, and check that files can be written to it.

    Raises:
        HomeError: Files cannot be written to it.
    """
    reason = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason or not os.access(folder, os.W_OK | os.X_OK):
        raise HomeError(
            f"cannot write to {folder} ({reason or 'it is read-only'}): set CODEDANCE_DIR to a "
            "writable folder"
        )


def prepare_environment(home: Home) -> None:
    """Set the variables that embedded MLflow and Prefect read at import; the user's values stay."""
    defaults = {
        "CODEDANCE_DIR": str(home.root),
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": home.mlflow_uri,
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",  # our own thread sends and checks traces
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # our own thread tries again
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen unused processes
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # On disk: the leases of a deployment's concurrency limit survive a server restart.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(PREFECT_PORT),
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{PREFECT_PORT}/api",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # 20 is too few when busy
        "PREFECT_CLI_PROMPT": "false",
        "OMP_NUM_THREADS": str(max(1, os.cpu_count() or 1)),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
