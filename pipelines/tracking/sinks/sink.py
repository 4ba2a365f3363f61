"""What a tracking tool must do to show the metrics of a run, and the tools that can.

A tool is written with its own client, in a module that is imported only when a run asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from ...config.server_settings import SinkName

SinkStatus = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class Point:
    """Metrics of a step.

    Attributes:
        index: Number of the point within its run, from 0; the same when it is sent again.
        step: Training step; 0 for results of a whole phase. Steps of one metric only rise.
        values: Finite values by name, such as ``rewards/format/mean``.
    """

    index: int
    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SinkRun:
    """A run as a tool shows it.

    Attributes:
        id: Our id of the stage run, the tool's as well: the same after a resume.
        group: Id of the pipeline run.
        project: Name of the project.
        parameters: All parameters, nested.
        root: Folder with all our state, for the tool's local files.
        sent: Number of points that the tool keeps; 0 for a new run.
        newest: Largest step among them; -1 where there are none.
    """

    id: str
    group: str
    project: str
    parameters: Mapping[str, Any]
    root: Path
    sent: int = 0
    newest: int = -1


class MetricsSink(Protocol):
    """A tool that shows the metrics of one run; its calls may take long, and may raise anything.

    Attributes:
        keeps: Whether it has what `log` took even if the process is killed; else only after `end`.
    """

    keeps: bool

    def begin(self, run: SinkRun) -> str:
        """Begin a run, or continue it; return where to look, in a line for the terminal."""
        ...

    def log(self, points: Sequence[Point]) -> None:
        """Hand points over to the client, in order."""
        ...

    def end(self, status: SinkStatus) -> None:
        """Hand over what the client still holds, and end the run; it may be continued later."""
        ...


class MissingSinkError(ValueError):
    """The package of a tool is not installed; the message names the extra that installs it."""


_CLASSES: dict[SinkName, str] = {
    "tensorboard": "TensorBoardSink",
    "trackio": "TrackioSink",
    "wandb": "WandbSink",
}
"""Name of a tool, which is that of its package and of the extra, and its class."""


def check_sinks(names: Sequence[SinkName]) -> None:
    """Make sure that the tools' packages are installed, without importing them.

    Raises:
        MissingSinkError: A package is missing.
    """
    for name in names:
        found = find_spec(name)
        if found is None or found.origin is None:  # else it is a folder, such as W&B's own `wandb`
            raise MissingSinkError(
                f"metrics are to go to {name}, whose package is not installed: "
                f"pip install 'codedance[{name}]', or name another tool (tracking.also, --to)"
            )


def open_sink(name: SinkName) -> MetricsSink:
    """Return the sink of a tool; its client is imported here.

    Raises:
        ImportError: The client cannot be imported.
    """
    module = import_module(f"{__package__}.{name}_sink")
    return getattr(module, _CLASSES[name])()
