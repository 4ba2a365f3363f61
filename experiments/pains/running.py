"""Runs tries in their contestants' environments, one process for each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .environments import OURS, ROOT
from .verdict import Verdict

PAINS = {
    "image_tokens": "Image tokens and image features disagree once tools return images",
    "tool_collapse": "Tool calls collapse to zero, unnoticed",
    "published_scores": "Published scores are not reproduced",
    "inflated_scores": "Evaluators inflate or degrade silently",
    "dropped_images": "Images are dropped with no error",
    "hanging_code": "Code hangs the run; time limits by signals fail in threads",
    "infrastructure_failure": "A failure of infrastructure becomes a reward of 0",
    "retokenisation": "Retokenisation drift",
    "hardware": "Too much hardware to begin with",
    "memory_growth": "Memory grows until the run is killed",
    "sandbox_scale": "Tool servers and containers do not scale",
    "no_docker": "No Docker on clusters",
    "resume": "Resuming is wrong or missing",
    "fighting_pins": "Dependency pins fight",
    "flat_groups": "Zero-variance groups, no dynamic sampling",
}
"""Tries and the pains that they try, in the order of the list that they are from."""
CONTESTANTS = ("ours", "trl", "verl", "verifiers")
_LONGEST_SECONDS = 600.0
_VERSION = (
    "import sys\nfrom importlib.metadata import PackageNotFoundError, version\n"
    "try: found = version(sys.argv[1])\nexcept PackageNotFoundError: found = 'this checkout'\n"
    "print(found, '(Python', sys.version.split()[0] + ')')"
)


@dataclass(frozen=True, slots=True)
class Results:
    """Verdicts of a run.

    Attributes:
        versions: Version of each contestant and of its Python.
        verdicts: Verdict by try and contestant.
        load_before: Load of the machine before the run, over the last minute.
    """

    versions: Mapping[str, str]
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict[tuple[str, str], Verdict])
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])


def run_pains(
    names: Iterable[str],
    pythons: Mapping[str, Path],
    *,
    on_result: Callable[[str], None] = lambda _: None,
) -> Results:
    """Run the tries, one after another.

    Args:
        names: Names of tries.
        pythons: Interpreter of each contestant.
        on_result: Called with a line for each verdict.

    Raises:
        RuntimeError: A try broke; the message ends with what it printed.
    """
    results = Results({name: _version(name, python) for name, python in pythons.items()})
    for name in names:
        for contestant in pythons:
            found = run_try(name, contestant, pythons)
            results.verdicts[name, contestant] = found
            on_result(f"{name}, {contestant}: {found.result}. {found.evidence}")
    return results


def run_try(name: str, contestant: str, pythons: Mapping[str, Path]) -> Verdict:
    """Run one try in its contestant's environment.

    Raises:
        RuntimeError: It broke, or took more than ten minutes.
    """
    command = [str(pythons[contestant]), "-m", f"{__package__}.verdict", name, contestant]
    given = {"PAINS_CONTESTANT": contestant}
    given["PAINS_PYTHONS"] = json.dumps({one: str(path) for one, path in pythons.items()})
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(contestant) | given,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(_LONGEST_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(
                f"{name}, {contestant}: no verdict in {error.timeout:g} s"
            ) from error
        finally:
            with contextlib.suppress(ProcessLookupError):  # its helpers, which may hang, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        printed.seek(0)
        return _read(printed.read(), f"{name}, {contestant}")


def _read(printed: str, what: str) -> Verdict:
    """Return the verdict in what a try printed, whatever else others printed among it."""
    for line in reversed(printed.splitlines()):
        if line.startswith('{"result"'):
            return Verdict(**json.loads(line))
    raise RuntimeError(f"{what}: the try broke\n{printed[-3000:]}")


def environment(contestant: str) -> dict[str, str]:
    """Return the variables of a contestant's process: this checkout; our packages for ours only."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CODEDANCE_")}
    path = [
        str(ROOT),
        *([kept["PYTHONPATH"]] if contestant == OURS and "PYTHONPATH" in kept else ()),
    ]
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "true", "TRL_EXPERIMENTAL_SILENCE": "1"}
    quiet |= {"WANDB_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    return kept | quiet | {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(path)}


def _version(contestant: str, python: Path) -> str:
    package = "codedance" if contestant == OURS else contestant
    done = subprocess.run(
        [str(python), "-c", _VERSION, package],
        env=environment(contestant),
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or f"unknown (Python {sys.version.split()[0]})"
