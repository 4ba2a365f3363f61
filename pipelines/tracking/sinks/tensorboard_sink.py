"""TensorBoard: a folder of event files per stage run, written by PyTorch's client.

The folders are ``CODEDANCE_DIR/tensorboard/PIPELINE/STAGE``. PyTorch's client is used because it
reports what it could not write; that of tensorboardX waits for its dead thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from .sink import Point, SinkRun, SinkStatus

FOLDER = "tensorboard"


class TensorBoardSink:
    """Writes a run as scalars, its parameters as text and as hyperparameters."""

    keeps = True

    def __init__(self) -> None:
        self._module: Any = import_module("torch.utils.tensorboard")
        self._writer: Any = None

    def begin(self, run: SinkRun) -> str:
        """Open the folder; what an earlier process wrote after the last known step is hidden."""
        folder = run.root / FOLDER / run.group / run.id
        self._writer = self._module.SummaryWriter(str(folder), purge_step=run.newest + 1)
        if not run.sent:
            self._describe(run.parameters)
        self._writer.flush()
        return f"TensorBoard: tensorboard --logdir {run.root / FOLDER}"

    def log(self, points: Sequence[Point]) -> None:
        """Write points to the disk."""
        for point in points:
            for name, value in point.values.items():
                self._writer.add_scalar(name, value, point.step)
        self._writer.flush()

    def end(self, status: SinkStatus) -> None:
        """Close the file; TensorBoard has no status of a run."""
        self._writer.close()

    def _describe(self, parameters: Mapping[str, Any]) -> None:
        """Write the parameters as a table, and in the form of the page "HParams"."""
        values = flat(parameters)
        rows = "\n".join(f"| {name} | {value} |" for name, value in values.items())
        self._writer.add_text("parameters", f"| parameter | value |\n|---|---|\n{rows}", 0)
        summary = import_module("torch.utils.tensorboard.summary")
        for part in summary.hparams(values, {}):
            self._writer.file_writer.add_summary(part)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested parameters; what is no number, truth value or text becomes text.

    >>> flat({"sft": {"steps": 3, "stop": []}})
    {'sft.steps': 3, 'sft.stop': '[]'}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            is_plain = isinstance(value, bool | int | float | str)
            found[f"{prefix}{name}"] = value if is_plain else str(value)
    return found
