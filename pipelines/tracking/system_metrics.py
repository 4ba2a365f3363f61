"""Load of the machine while a stage runs, for MLflow's page "System metrics".

The names are those of MLflow's own system metrics; they are recorded in the run's folder, and not
lost while MLflow is unreachable.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..concurrency.background import repeated
from ..store.claims import ClaimLostError
from .tracker import Tracker

PERIOD_SECONDS = 10.0
MEGABYTE = 1e6
_GPU_FIELDS = "index,utilization.gpu,memory.used,memory.total,power.draw"
_GPU_NAMES = ("utilization_percentage", "memory_usage_megabytes", "power_usage_watts")


@contextmanager
def metered(tracker: Tracker, run_id: str, folder: Path) -> Generator[None]:
    """Sample the machine every ten seconds within the context; the step is the time in seconds."""
    meter = Meter(folder)

    def sample() -> None:
        with suppress(ClaimLostError):  # the run is another process's; the stage is told as well
            tracker.metrics(run_id, int(time.time()), meter.sample())

    with repeated(sample, every=PERIOD_SECONDS, name="system-metrics"):
        yield


class Meter:
    """Reads the machine's counters.

    Args:
        folder: Folder whose disk is measured.
    """

    def __init__(self, folder: Path) -> None:
        import psutil

        self._folder = folder
        self._psutil = psutil
        self._process = psutil.Process()
        self._net = psutil.net_io_counters()
        self._has_gpu = shutil.which("nvidia-smi") is not None
        psutil.cpu_percent()
        self._process.cpu_percent()

    def sample(self) -> dict[str, float]:
        """Return the metrics since the last call."""
        memory = self._psutil.virtual_memory()
        disk = shutil.disk_usage(self._folder)
        figures = {
            "cpu_utilization_percentage": self._psutil.cpu_percent(),
            "process_cpu_percentage": self._process.cpu_percent(),
            "process_memory_megabytes": self._process.memory_info().rss / MEGABYTE,
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            "disk_available_megabytes": disk.free / MEGABYTE,
            "disk_usage_percentage": 100.0 * disk.used / disk.total,
        }
        if self._has_gpu:
            figures |= read_gpus(_ask_gpus())
        figures |= self._network()
        return {f"system/{name}": float(value) for name, value in figures.items()}

    def _network(self) -> dict[str, float]:
        now, before = self._psutil.net_io_counters(), self._net
        self._net = now
        return {
            f"network_{word}_megabytes": (getattr(now, name, 0) - getattr(before, name, 0))
            / MEGABYTE
            for word, name in (("receive", "bytes_recv"), ("transmit", "bytes_sent"))
        }


def read_gpus(text: str) -> dict[str, float]:
    """Parse the output of ``nvidia-smi``, one line per GPU; unknown values are left out.

    >>> read_gpus("0, 50, 1000, 80000, [N/A]")
    {'gpu_0_utilization_percentage': 50.0, 'gpu_0_memory_usage_megabytes': 1000.0}
    """
    figures: dict[str, float] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(_GPU_FIELDS.split(",")):
            continue
        index, used, memory, _, power = cells
        for name, cell in zip(_GPU_NAMES, (used, memory, power), strict=True):
            if cell.replace(".", "", 1).isdigit():
                figures[f"gpu_{index}_{name}"] = float(cell)
    return figures


def _ask_gpus() -> str:
    command = ["nvidia-smi", f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
