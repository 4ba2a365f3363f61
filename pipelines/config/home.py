"""Where everything that CodeDance keeps lies: one folder, ``CODEDANCE_DIR``.

The variables that embedded MLflow and Prefect read are set here and nowhere else, before either
is imported: their telemetry off, their homes inside the folder, their servers on 127.0.0.1.
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
    """The folder and the places in it."""

    root: Path

    @property
    def store_url(self) -> str:
        """The trajectory store; ``CODEDANCE_STORE_URL`` names another."""
        return os.environ.get("CODEDANCE_STORE_URL") or f"sqlite:///{self.root / 'store.db'}"

    @property
    def store_wait_seconds(self) -> float:
        """How long a store that went away is waited for: ``CODEDANCE_STORE_WAIT``, 10 minutes.

        Raises:
            ValueError: It is no number of seconds.
        """
        told = os.environ.get("CODEDANCE_STORE_WAIT") or "600"
        try:
            return float(told)
        except ValueError:
            raise ValueError(
                f"CODEDANCE_STORE_WAIT is to be a number of seconds, such as 600, not {told!r}"
            ) from None

    @property
    def images(self) -> Path:
        """Content-addressed pictures; ``CODEDANCE_IMAGES`` names a folder that machines share."""
        named = os.environ.get("CODEDANCE_IMAGES")
        return Path(named).expanduser().resolve() if named else self.root / "images"

    @property
    def stages(self) -> Path:
        """A folder a stage run: its state, its checkpoint."""
        return self.root / "stages"

    @property
    def reports(self) -> Path:
        """A folder a pipeline run: its report."""
        return self.root / "reports"

    @property
    def outbox(self) -> Path:
        """What MLflow has not been told yet."""
        return self.root / "spool"

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking address."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Where embedded MLflow keeps files."""
        return self.root / "mlartifacts"

    @property
    def prefect(self) -> Path:
        """Prefect's home: its database and results."""
        return self.root / "prefect"


class HomeError(RuntimeError):
    """The folder cannot be written; the message names it and says what to change."""


def find_home(root: Path | str | None = None, *, make: bool = True) -> Home:
    """Return the folder (``root``, else ``CODEDANCE_DIR``, else ``.codedance``), made if missing.

    Args:
        root: Another than the environment names.
        make: Whether something will be written there; False only names the folder.

    Raises:
        HomeError: It is to be written and cannot be.
    """
    named = root or os.environ.get("CODEDANCE_DIR") or ".codedance"
    home = Home(Path(named).expanduser().resolve())
    if make:
        check_writable(home.root)
    return home


def check_writable(folder: Path) -> None:
    """Make the folder where all state lies, and make sure that files can be put into it.

    Raises:
        HomeError: They cannot be.
    """
    reason = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason or not os.access(folder, os.W_OK | os.X_OK):
        raise HomeError(
            f"nothing can be written in {folder} ({reason or 'it is read-only'}): set "
            "CODEDANCE_DIR to a folder that can be written"
        )


def prepare_environment(home: Home) -> None:
    """Set what embedded MLflow and Prefect read at import; what the user has set stays."""
    defaults = {
        "CODEDANCE_DIR": str(home.root),
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": home.mlflow_uri,
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",  # our own thread sends, and checks
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the spool tries again, and holds up nobody
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen processes that nothing here uses
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # On disk: what counts for a deployment's limit outlasts a restart of the server.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(PREFECT_PORT),
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{PREFECT_PORT}/api",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # 20 are few on a busy machine
        "PREFECT_CLI_PROMPT": "false",
        "OMP_NUM_THREADS": str(max(1, os.cpu_count() or 1)),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
