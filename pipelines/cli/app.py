"""Puts the commands together and turns our errors into one clear line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Protocol, runtime_checkable

import typer

from .ask import ask
from .attack_reward import attack_reward
from .baselines import baselines
from .bench import bench_app
from .doctor import doctor
from .emergence import emergence
from .judge import evaluate, report, rescore
from .plan import plan
from .play import play
from .probe import probe
from .sandbox import sandbox_app
from .scale import scale
from .servers import flows_app, ui
from .serving import serve_app
from .train import curate, grpo, run, sft
from .view import view

app = typer.Typer(
    name="codedance",
    help="Train, run and judge vision-language models that think by writing and running code.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    run,
    curate,
    sft,
    grpo,
    evaluate,
    rescore,
    report,
    view,
    ask,
    play,
    plan,
    baselines,
    attack_reward,
    emergence,
    probe,
    scale,
    ui,
    doctor,
):
    app.command()(command)
app.add_typer(bench_app, name="bench")
app.add_typer(flows_app, name="flows")
app.add_typer(sandbox_app, name="sandbox")
app.add_typer(serve_app, name="serve")

INTERRUPTED = 130
FAILED = 1


@runtime_checkable
class _UsageProblem(Protocol):
    """What is wrong with a command line, as click says it."""

    exit_code: int

    def show(self) -> None: ...


def run_app() -> None:
    """Run the command; the one place where any error may end."""
    try:
        code = app(standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - the edge of the program
        code = _explain(error)
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> int:
    """Print what went wrong; a traceback only where the error is not one we know."""
    if type(error).__name__ == "Abort":
        return INTERRUPTED
    if isinstance(error, _UsageProblem):  # typer's own click, or the click beside it
        error.show()
        return error.exit_code
    if type(error).__name__ == "StageInterrupted":
        return INTERRUPTED
    is_known = type(error).__module__.startswith("codedance.") or isinstance(
        error, (ValueError, OSError)
    )
    if os.environ.get("CODEDANCE_DEBUG") or not is_known:
        traceback.print_exception(error)
    else:
        print(f"codedance: {error}", file=sys.stderr)  # noqa: T201
    return FAILED
