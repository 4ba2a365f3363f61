"""Assembles the commands and maps errors to one clear line and an exit code."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import typer

from ..config.registry import EVALUATION
from .analysis.attack_reward import attack_reward
from .analysis.emergence import emergence
from .analysis.judge import evaluate, report, rescore
from .analysis.probe import probe
from .analysis.scale import scale
from .analysis.view import view
from .episodes.ask import ask
from .episodes.play import play
from .examples import PlainCommand, PlainGroup, add_examples, flowing
from .exit_codes import INTERRUPTED, MEANINGS, UNREAD, USAGE, code_of, is_ours
from .runs import runs
from .safe_logs import protect_terminal
from .services.doctor import doctor
from .services.flows import flows_app
from .services.metrics import metrics
from .services.mlflow import mlflow_app
from .services.sandbox import sandbox_app
from .services.serving import serve_app
from .services.ui import ui
from .store import store_app
from .training.plan import plan
from .training.stage_commands import replacement_note, stage_commands
from .training.train import run

EXIT_CODES = "Exit codes\n\n" + "\n\n".join(f"{code}  {words}" for code, words in MEANINGS.items())
PANELS = {
    "Train": (run, *stage_commands().values(), plan),
    "Evaluate": (
        *(evaluate, rescore, report),
        *(probe, scale, emergence, attack_reward),
    ),
    "Inspect": (runs, view, metrics, ask, play, ui, doctor),
}
GROUPS = {
    "store": store_app,
    "flows": flows_app,
    "mlflow": mlflow_app,
    "sandbox": sandbox_app,
    "serve": serve_app,
}

app = typer.Typer(
    name="codedance",
    cls=PlainGroup,
    help="Train, run and evaluate vision-language models that reason by writing and running code.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
for group, members in GROUPS.items():
    app.add_typer(members, name=group, rich_help_panel="Operate (more commands in each)")
add_examples(app)
for command in app.registered_commands:
    if command.callback is evaluate and (note := replacement_note(EVALUATION)):
        head, *rest = (command.help or "").split("\n\n")
        command.help = "\n\n".join((f"{head} {note}", *rest))


@runtime_checkable
class _UsageProblem(Protocol):
    """A usage error of click."""

    exit_code: int

    def show(self) -> None: ...


def run_single(command: Callable[..., Any], program: str) -> None:
    """Run one function as a program, with the same options, errors and exit codes."""
    run_app(single_app(command), program)


def single_app(command: Callable[..., Any]) -> typer.Typer:
    """Return the command line of a single-function program."""
    single = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    single.command(cls=PlainCommand, help=flowing(inspect.getdoc(command) or ""))(command)
    return single


def run_app(application: typer.Typer = app, program: str = "codedance") -> None:
    """Run a program; the one place that handles all errors."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent process
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    if empty := _empty_word(sys.argv[1:]):
        print(f"{program}: {empty} is empty: give a value, or leave it out", file=sys.stderr)  # noqa: T201
        sys.exit(USAGE)
    protect_terminal()
    try:
        code = application(standalone_mode=False, prog_name=program)
    except Exception as error:  # noqa: BLE001 - the top level of the program
        code = _explain(error, program)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as leaving:  # click exits this way from a pipe whose reader is gone
        code = UNREAD if type(sys.stdout).__name__ == "PacifyFlushWrapper" else leaving.code
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else 0)


def _empty_word(words: Sequence[str]) -> str | None:
    """Return the name of an option with an empty value, usually an unset shell variable."""
    for before, word in pairwise(["", *words]):
        if not word.strip() and before.startswith("-"):
            return before
        name, mark, value = word.partition("=")
        if name.startswith("--") and mark and not value.strip():
            return name
    return None


def _explain(error: Exception, program: str) -> int:
    """Print an error; with a traceback only if it is not a known one."""
    if code_of(error) == INTERRUPTED and isinstance(error.__cause__, EOFError):
        error = error.__cause__  # typer takes every one for Ctrl-D; a prompt raises Abort itself
    if isinstance(error, _UsageProblem):  # of typer's bundled click, or of click
        error.show()
        return error.exit_code
    from ...sandbox.plain_text import escape_controls  # not needed for --help

    code = code_of(error)
    if code != INTERRUPTED:
        is_worded = is_ours(error) or isinstance(error, ValueError | OSError)
        if os.environ.get("CODEDANCE_DEBUG") or not is_worded:
            text = "".join(traceback.format_exception(error)).rstrip("\n")
        else:
            text = f"{program}: {error}"
        print(escape_controls(text), file=sys.stderr)  # noqa: T201 - it may quote a model
    return code
