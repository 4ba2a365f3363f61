"""Reproduction of the paper's findings: training, evaluation, results page (see README.md).

Run from the repository's root:

    $ python -m experiments.claims --jobs 2
    $ python -m experiments.claims --only 'sft/*' --seeds 1
    $ python -m experiments.claims --report --json
"""

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
from codedance.pipelines.cli.app import run_single
from codedance.pipelines.cli.cores import use_workers
from codedance.pipelines.cli.document import document
from codedance.pipelines.cli.options import Json

from .paper import RESULTS_PAGE

if TYPE_CHECKING:
    from .paper.page import Results
    from .paper.work import Experiment

PRESET = "quick"
ROOT = Path(__file__).parents[1]
_PROGRAM = (
    f"import sys; sys.path.append({str(ROOT)!r}); from experiments.claims import main; main()"
)
COMMAND = (sys.executable, "-c", _PROGRAM)


def claims(  # noqa: PLR0913 - the options of the command
    preset: Annotated[str, typer.Option(help="quick (2 cores) or full (a GPU).")] = PRESET,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Number of seeds, from 0; else the protocol's.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of arms, such as 'rl/code/*'; may be repeated."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Only write the results, without training.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Number of parallel processes.")] = 1,
    protocol: Annotated[
        Path | None, typer.Option(help="Protocol to use instead of the packaged one.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="File for the results; else claims/results.md in CODEDANCE_DIR.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train and compare the paper's arms, seed by seed, and test its claims.

    Arms, metrics and stopping rule are fixed in a protocol beforehand. It can be interrupted at any
    time: the same command resumes it, and no finished arm is rerun.
    """
    _refuse_what_would_be_ignored(only, jobs, report=report)
    if jobs > 1:
        use_workers(max(1, len(os.sched_getaffinity(0)) // jobs))
    run_request = _Request(preset, seeds, tuple(only or ()), protocol, output, jobs)
    with document(json) as publish:
        results = _run(run_request, report=report)
        publish({"claims": (*results.judgements, *results.emerged), "page": run_request.page})


def _refuse_what_would_be_ignored(only: list[str] | None, jobs: int, *, report: bool) -> None:
    if report and (only or jobs > 1):
        raise typer.BadParameter(
            "--report trains nothing and reports all arms: leave it out",
            param_hint="--only" if only else "--jobs",
        )


@dataclass(frozen=True, slots=True)
class _Request:
    """Options of the user, as described in `claims`."""

    preset: str
    seeds: int | None
    only: Sequence[str]
    protocol: Path | None
    output: Path | None
    jobs: int

    @property
    def page(self) -> Path:
        """File of the results."""
        from codedance.pipelines.config.home import find_home

        return self.output or find_home().root / RESULTS_PAGE


def _run(run_request: _Request, *, report: bool) -> Results:
    from codedance.pipelines.runs.session import open_session

    from .paper.plan import make_plan
    from .paper.protocol import load_protocol
    from .paper.work import Experiment

    protocol = load_protocol(run_request.protocol)
    nodes = make_plan(protocol, run_request.only)
    protocol.sizes(run_request.preset)
    with open_session(track=False) as session:
        experiment = Experiment(
            session,
            protocol,
            run_request.preset,
            range(run_request.seeds or protocol.seeds),
            nodes,
            jobs=run_request.jobs,
        )
        if not report:
            _train(experiment, run_request)
        results = _write(experiment, run_request)
        _print(results, run_request.page)
        return results


def _train(experiment: Experiment, run_request: _Request) -> None:
    from codedance.pipelines.cli.output import say
    from codedance.pipelines.runs.context import StageInterrupted
    from codedance.pipelines.runs.runner import load_code

    from .paper.work import ClaimsError

    load_code()
    with _helpers(experiment, run_request.jobs - 1):
        try:
            experiment.work(after_seed=lambda: _write(experiment, run_request))
        except (StageInterrupted, KeyboardInterrupt):
            say("stopped; the same command resumes it")
            raise
        except ClaimsError:
            _write(experiment, run_request)
            raise


@contextmanager
def _helpers(experiment: Experiment, count: int) -> Generator[None]:
    """Start further processes that share the work; their output goes to files beside the locks."""
    from codedance.pipelines.cli.output import say

    experiment.folder.mkdir(parents=True, exist_ok=True)
    arguments = [*_without_jobs(sys.argv[1:]), "--jobs", "1"]
    started: list[subprocess.Popen[bytes]] = []
    for number in range(count):
        path = experiment.folder / f"process-{number + 2}.log"
        with path.open("ab") as log:
            started.append(subprocess.Popen([*COMMAND, *arguments], stdout=log, stderr=log))
        say(f"process {number + 2} of {count + 1} logs to {path}")
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


def _write(experiment: Experiment, run_request: _Request) -> Results:
    from .paper.results import read_results, save_page

    found = read_results(
        experiment.session.store, experiment.protocol, experiment.preset, experiment.seeds
    )
    results = replace(found, file=run_request.protocol, output=run_request.output)
    save_page(results, run_request.page)
    return results


def _print(results: Results, out: Path) -> None:
    from codedance.pipelines.cli.output import say

    for one in (*results.judgements, *results.emerged):
        say(f"{one.verdict:<16} {one.claim.name}")
    say(f"results  {out}")


def main() -> None:
    """Run the experiment as a program."""
    run_single(claims, "python -m experiments.claims")


if __name__ == "__main__":
    main()
