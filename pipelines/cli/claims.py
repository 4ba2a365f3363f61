"""``codedance claims``: the paper's findings, trained, judged and written down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..claims import RESULTS_PAGE
from .cores import use_workers
from .document import document
from .options import Json

if TYPE_CHECKING:
    from ..claims.page import Results
    from ..claims.work import Experiment

PRESET = "quick"
COMMAND = (sys.executable, "-c", "from codedance.pipelines.cli import main; main()")


def claims(  # noqa: PLR0913 - the options of the command
    preset: Annotated[str, typer.Option(help="quick (2 cores) or full (a GPU).")] = PRESET,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds 0 to SEEDS - 1; else the protocol's number.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Arms by pattern, such as 'rl/code/*'; repeatable.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Train nothing; only write the results.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 1,
    protocol: Annotated[
        Path | None, typer.Option(help="Another protocol than the packaged one.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Where the results are written; else claims/results.md in CODEDANCE_DIR.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train and compare what the paper compares, seed by seed, and judge its findings.

    Arms, metrics and stopping rule stand in a protocol that was fixed beforehand. Stop it however
    you like: the same command goes on, and no finished arm is run again.
    """
    _refuse_what_would_be_ignored(only, jobs, report=report)
    if jobs > 1:
        use_workers(max(1, len(os.sched_getaffinity(0)) // jobs))
    wish = _Wish(preset, seeds, tuple(only or ()), protocol, output, jobs)
    with document(json) as publish:
        results = _run(wish, report=report)
        publish({"claims": (*results.judgements, *results.emerged), "page": wish.page})


def _refuse_what_would_be_ignored(only: list[str] | None, jobs: int, *, report: bool) -> None:
    if report and (only or jobs > 1):
        raise typer.BadParameter(
            "--report trains nothing and tells of all arms: leave it out",
            param_hint="--only" if only else "--jobs",
        )


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the user asked for; `claims` says what each name means."""

    preset: str
    seeds: int | None
    only: Sequence[str]
    protocol: Path | None
    output: Path | None
    jobs: int

    @property
    def page(self) -> Path:
        """Where the results are written."""
        from ..config.home import find_home

        return self.output or find_home().root / RESULTS_PAGE


def _run(wish: _Wish, *, report: bool) -> Results:
    from ..claims.plan import make_plan
    from ..claims.protocol import load_protocol
    from ..claims.work import Experiment
    from ..runs.session import open_desk

    protocol = load_protocol(wish.protocol)
    nodes = make_plan(protocol, wish.only)
    protocol.sizes(wish.preset)
    with open_desk(track=False) as desk:
        experiment = Experiment(
            desk, protocol, wish.preset, range(wish.seeds or protocol.seeds), nodes, jobs=wish.jobs
        )
        if not report:
            _train(experiment, wish)
        results = _write(experiment, wish)
        _print(results, wish.page)
        return results


def _train(experiment: Experiment, wish: _Wish) -> None:
    from ..claims.work import ClaimsError
    from ..runs.context import StageInterrupted
    from ..runs.runner import load_code
    from .output import say

    load_code()
    with _helpers(experiment, wish.jobs - 1):
        try:
            experiment.work(after_seed=lambda: _write(experiment, wish))
        except (StageInterrupted, KeyboardInterrupt):
            say("stopped; the same command goes on where it was")
            raise
        except ClaimsError:
            _write(experiment, wish)
            raise


@contextmanager
def _helpers(experiment: Experiment, count: int) -> Generator[None]:
    """Have further processes share the work; what they say goes to files beside the locks."""
    from .output import say

    experiment.folder.mkdir(parents=True, exist_ok=True)
    arguments = [*_without_jobs(sys.argv[1:]), "--jobs", "1"]
    started: list[subprocess.Popen[bytes]] = []
    for number in range(count):
        path = experiment.folder / f"process-{number + 2}.log"
        with path.open("ab") as log:
            started.append(subprocess.Popen([*COMMAND, *arguments], stdout=log, stderr=log))
        say(f"process {number + 2} of {count + 1} says what it does in {path}")
    try:
        yield
    except BaseException:
        for process in started:
            process.terminate()  # each stops after its step
        raise
    finally:
        for process in started:
            process.wait()


def _without_jobs(arguments: Sequence[str]) -> list[str]:
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--jobs":
            next(rest, None)
        elif not argument.startswith("--jobs="):
            kept.append(argument)
    return kept


def _write(experiment: Experiment, wish: _Wish) -> Results:
    from ..claims.results import read_results, save_page

    found = read_results(
        experiment.desk.store, experiment.protocol, experiment.preset, experiment.seeds
    )
    results = replace(found, file=wish.protocol, output=wish.output)
    save_page(results, wish.page)
    return results


def _print(results: Results, out: Path) -> None:
    from .output import say

    for one in (*results.judgements, *results.emerged):
        say(f"{one.verdict:<16} {one.claim.name}")
    say(f"results  {out}")
