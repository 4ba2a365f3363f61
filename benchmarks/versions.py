"""Two versions of this project side by side: a benchmark of each, run in turn, as ratios.

    $ python -m benchmarks.versions --pairs 20 --figure result.ours \
        'env -C ../before python -m benchmarks.update --rounds 1 --output {output}' \
        'python -m benchmarks.update --rounds 1 --output {output}'

A command writes its measurements, as JSON, where ``{output}`` stands. A figure is a path into them:
names and numbers apart by dots, ``name=value`` for the members of a list with that value.
"""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from codedance.pipelines.cli.output import say
from codedance.pipelines.runs.machine import load

from .command import Output, run_command


def versions(
    before: Annotated[str, typer.Argument(help="Command of the older version.")],
    after: Annotated[str, typer.Argument(help="Command of the newer version.")],
    figure: Annotated[list[str], typer.Option(help="Path of seconds in the measurements.")],
    pairs: Annotated[int, typer.Option(min=6, help="Number of pairs.")] = 20,
    output: Output = None,
) -> None:
    """Compare two versions by the median ratio of their times (before / after, 95 % interval).

    Above 1, the newer one is faster. Needs a quiet machine.
    """
    found: dict[str, list[tuple[float, float]]] = {path: [] for path in figure}
    begun = load()
    for number in range(pairs):
        commands = (before, after) if number % 2 == 0 else (after, before)
        measured = {command: _measure(command) for command in commands}
        for path, those in found.items():
            those.append((_value(measured[before], path), _value(measured[after], path)))
        say(f"pair {number + 1} of {pairs}")
    for path, those in found.items():
        say(f"{path}\n  {_result(those)}")
    say(f"load {begun:.2f} at the start, {load():.2f} at the end")
    if output is not None:
        output.write_text(json.dumps(found, indent=1), encoding="utf-8")


def _measure(command: str) -> Any:  # noqa: ANN401 - JSON
    """Run a command and return its measurements.

    Raises:
        CalledProcessError: The command failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measurements.json"
        words = shlex.split(command.replace("{output}", str(path)))
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        return json.loads(path.read_text(encoding="utf-8"))


def _value(measured: Any, path: str) -> float:  # noqa: ANN401 - JSON
    """Return the median of what a path leads to.

    Raises:
        ValueError: It leads to no number.
    """
    found = [measured]
    for step in path.split("."):
        found = [child for parent in found for child in _children(parent, step)]
    numbers = [one for each in found for one in (each if isinstance(each, list) else [each])]
    if not numbers or not all(isinstance(one, int | float) for one in numbers):
        raise ValueError(f"{path!r} leads to no numbers in the measurements")
    return statistics.median(numbers)


def _children(parent: Any, step: str) -> Iterable[Any]:  # noqa: ANN401 - JSON
    name, separator, value = step.partition("=")
    if separator:
        members = parent if isinstance(parent, list) else [parent]
        return [one for one in members if str(one[name]) == value]
    if isinstance(parent, list) and step.isdigit():
        return [parent[int(step)]]
    return [parent[step]] if isinstance(parent, dict) and step in parent else []


def _result(those: list[tuple[float, float]]) -> str:
    from scipy.stats import quantile_test

    ratios = [before / after for before, after in those]
    interval = quantile_test(ratios).confidence_interval(0.95)
    before, after = (statistics.median(side) for side in zip(*those, strict=True))
    return (
        f"before {before:.4g} s, after {after:.4g} s, ratio {statistics.median(ratios):.3f} "
        f"({interval.low:.3f} to {interval.high:.3f})"
    )


if __name__ == "__main__":
    run_command(versions)
