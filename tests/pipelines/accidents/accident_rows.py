"""Rows of accidents: ``python -m pipelines.accidents.accident_rows`` runs all, and writes a page.

Numbers after it run only these rows; with ``--write`` before them, their lines in the page are
replaced or added.

Each row is a command of the README, with or without Prefect, the running stage, and the accident.
Afterwards the same command has to resume, and `check_whole` must find nothing lost, done twice,
left running, or blocking others.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codedance.pipelines.charts.markdown_table import markdown_table

from .accident_trial import STEPS, OwnFolder, Trial, check_whole
from .accidents import (
    ctrl_c,
    ctrl_c_while_waiting,
    ctrl_c_while_waiting_for_a_machine,
    full_disk,
    killed_child,
    killed_command,
    killed_flow_run,
    killed_worker,
    mlflow_away,
    model_server_away,
    model_server_not_started,
    postgres_away,
    unwritable_folder,
)

PAGE = Path(__file__).parents[3] / "docs" / "accidents.md"
RUN = ("run", "--preset", "smoke", "--seed", "0")
SERVER, ZYGOTE = killed_child("own_server:app"), killed_child("worker/start.py")
ALONE = ("--no-prefect",)


@dataclass(frozen=True)
class Row:
    """An accident: the command, with or without Prefect, the stage, and the event."""

    words: tuple[str, ...]
    stage: str
    happen: Callable[[Trial], None]
    event: str

    @property
    def name(self):
        return f"{' '.join(self.words)}, {self.stage}: {self.event}"


ROWS = (
    Row(RUN, "curate", killed_command, "kill -9 of the command"),
    Row((*RUN, *ALONE), "sft", killed_command, "kill -9 of the command"),
    Row(RUN, "grpo", killed_command, "kill -9 of the command"),
    Row((*RUN, *ALONE), "evaluate", killed_command, "kill -9 of the command"),
    Row((*RUN, *ALONE), "curate", ctrl_c, "Ctrl-C"),
    Row(RUN, "sft", ctrl_c, "Ctrl-C"),
    Row((*RUN, *ALONE), "grpo", ctrl_c, "Ctrl-C"),
    Row(RUN, "evaluate", ctrl_c, "Ctrl-C"),
    Row(("sft",), "sft", ctrl_c_while_waiting, "Ctrl-C while waiting for a turn"),
    Row(RUN, "sft", SERVER, "kill -9 of the embedded Prefect server"),
    Row(RUN, "evaluate", SERVER, "kill -9 of the embedded Prefect server"),
    Row((*RUN, *ALONE), "curate", ZYGOTE, "kill -9 of the sandbox's zygote"),
    Row(RUN, "grpo", ZYGOTE, "kill -9 of the sandbox's zygote"),
    Row((*RUN, *ALONE), "evaluate", ZYGOTE, "kill -9 of the sandbox's zygote"),
    Row(("deployment", "sft/tiny"), "sft", killed_flow_run, "kill -9 of a worker's training"),
    Row(("deployment", "sft/tiny"), "sft", killed_worker, "kill -9 of the worker"),
    Row((*RUN, *ALONE), "grpo", full_disk, "full disk"),
    Row(RUN, "curate", full_disk, "full disk"),
    Row(RUN, "curate", mlflow_away(at_start=True), "MLflow's server away from the start"),
    Row((*RUN, *ALONE), "sft", mlflow_away(at_start=False), "MLflow's server killed"),
    Row((*RUN, *ALONE), "grpo", postgres_away(at_start=True), "PostgreSQL away at the start"),
    Row(RUN, "sft", postgres_away(at_start=False), "PostgreSQL stopped and started"),
    Row(
        ("evaluate", "--policy", "openai:random", "--limit", "210"),
        "evaluate",
        model_server_away,
        "model server killed and started",
    ),
    Row((*RUN, *ALONE), "evaluate", mlflow_away(at_start=False), "MLflow's server killed"),
    Row(RUN, "curate", unwritable_folder, "folder that cannot be written, at the start"),
    Row(
        ("evaluate", "--policy", "openai:random", "--limit", "210"),
        "evaluate",
        model_server_not_started,
        "model server away at the start",
    ),
    Row(
        ("sft",),
        "sft",
        ctrl_c_while_waiting_for_a_machine,
        "Ctrl-C while waiting for another machine",
    ),
)
IN_CI = (1, 11)
"""Rows that run in CI; `make test-accidents` runs all."""


def prepared(root: Path, row: Row) -> Trial:
    """Create the folder of a row, with the finished stages that its command needs."""
    folder = OwnFolder.__new__(OwnFolder)
    folder.extra = {}
    folder.__init__(root, STEPS["sft"] if row.words != ("sft",) else 60)
    if row.words[0] in ("sft", "deployment"):
        folder.run("curate", "--preset", "smoke", "--seed", "0", *ALONE, log="curate.log")
    return Trial(folder, row.words, row.stage)


def run_accident(row: Row, root: Path) -> Trial:
    """Run a row's accident in a folder, and check the result."""
    trial = prepared(root, row)
    row.happen(trial)
    if "CODEDANCE_STORE_URL" not in trial.folder.extra:  # else its server has ended
        check_whole(trial)
    return trial


HEAD = (
    "# Accidents",
    "",
    "Each row is an accident that interrupted a command of the README in the named stage, with "
    "embedded Prefect except for `--no-prefect` and deployments under `codedance flows serve`. "
    "Afterwards the same command resumed, if it had ended; every stage run existed once and was "
    "complete; no step and no episode was lost or stored twice; `codedance store verify` found "
    "nothing; no run was left running in the store, in Prefect or in MLflow; and no lock was left. "
    "`make test-accidents` repeats it. Seconds are measured until the stage recorded something "
    "new; for MLflow, until it was up to date. A process that the kernel kills for lack of memory "
    "ends by the same signal as with `kill -9`.",
    "",
    *markdown_table(("command", "stage", "accident", "seconds", "lost"), ()),
)


def _cells(row: Row, seconds: str) -> str:
    """Return a row's line of the page, or its beginning where ``seconds`` is empty."""
    cells = (f"`{' '.join(row.words)}`", row.stage, row.event, seconds, "nothing")
    line = markdown_table((), [cells])[2]
    return line if seconds else line.partition(" |  |")[0]


def _written() -> dict[str, str]:
    """Return the lines of the page by the row's name."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    found = {row.name: [one for one in lines if one.startswith(_cells(row, ""))] for row in ROWS}
    return {name: same[0] for name, same in found.items() if same}


def main(words: list[str]) -> None:
    chosen = [ROWS[int(word)] for word in words if word != "--write"]
    lines = _written() if chosen else {}
    for row in chosen or ROWS:
        with tempfile.TemporaryDirectory() as place:
            trial = run_accident(row, Path(place) / "a folder")
        lines[row.name] = _cells(row, f"{float(trial.notes.get('seconds', 0.0)):.1f}")
        sys.stdout.write(f"{ROWS.index(row)} {lines[row.name]} {trial.notes}\n")
        sys.stdout.flush()
        if chosen and "--write" in words:
            _write(lines)
    if not chosen:
        _write(lines)


def _write(lines: dict[str, str]) -> None:
    kept = [lines[row.name] for row in ROWS if row.name in lines]
    PAGE.write_text("\n".join((*HEAD, *kept)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
