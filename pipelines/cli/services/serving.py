"""``codedance serve``: a policy behind an OpenAI-compatible API, or vLLM for rollouts."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import Annotated

import typer

from .. import completion

_LOOK_SECONDS = 0.5
_TRANSFERS = ("folder", "nccl")
_PRECISIONS = ("auto", "float32", "bfloat16", "float16")

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")]

serve_app = typer.Typer(help="Serve a model over HTTP.", no_args_is_help=True)


@serve_app.callback()
def serve() -> None:
    """Serve a model over HTTP."""


@serve_app.command()
def model(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY",
            help="nano, oracle, random, a checkpoint folder or a hub id.",
            autocompletion=completion.policies,
        ),
    ] = "nano",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: Annotated[
        str | None, typer.Option(envvar="CODEDANCE_API_KEY", help="Key that requests must send.")
    ] = None,
) -> None:
    """Serve chat completions with an OpenAI-compatible API; Ctrl-C stops it."""
    from ....policies import load_policy
    from ...runs.processes import interruptible
    from ...serving.model_server import ModelServer
    from ..output import say

    with interruptible():
        loaded = load_policy(policy)
        with (
            contextlib.suppress(KeyboardInterrupt),
            ModelServer(loaded, host=host, port=port, api_key=api_key) as server,
        ):
            say(f"{server.name} at {server.url}")
            say("Ctrl-C stops it")
            signal.pause()


def _gpus(text: str | None) -> tuple[int, ...]:
    """Read ``0,1``; None for the first GPU where there is one."""
    import shutil

    if text is None:
        return (0,) if shutil.which("nvidia-smi") else ()
    if text in ("", "none"):
        return ()
    try:
        found = tuple(int(part) for part in text.split(","))
        if min(found) < 0:
            raise ValueError
        return found
    except ValueError:
        raise typer.BadParameter(
            f"indices of GPUs such as 0,1, or none; got {text!r}", param_hint="--gpus"
        ) from None


def _share(share: float | None, *, is_planned: bool) -> float:
    """Return the share of the memory; beside a training it has to be given."""
    from ...serving.engine.command import MEMORY_SHARE

    if is_planned and share is None:
        raise typer.BadParameter(
            "with --colocated the share that the training leaves, which `codedance plan MODEL "
            "--gpus 1 --colocated` prints",
            param_hint="--memory-share",
        )
    return share or MEMORY_SHARE


def _precision(name: str) -> str:
    """Reject a precision that vLLM does not take."""
    return _one_of(name, _PRECISIONS)


def _transfer(name: str) -> str:
    """Reject an unknown way to hand weights over."""
    return _one_of(name, _TRANSFERS)


def _one_of(name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise typer.BadParameter(f"one of {', '.join(names)}, got {name!r}")
    return name


EngineModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="nano, a checkpoint folder or a hub id.",
        autocompletion=completion.policies,
    ),
]
Gpus = Annotated[
    str | None, typer.Option(help="GPUs that share it, such as 0,1; none for the CPU.")
]
Precision = Annotated[
    str,
    typer.Option(
        callback=_precision,
        help="auto (the weights' own), float32, bfloat16 or float16.",
        autocompletion=completion.one_of(*_PRECISIONS),
    ),
]
Context = Annotated[int, typer.Option(min=1, help="Longest prompt and reply together, in tokens.")]
MemoryShare = Annotated[
    float | None,
    typer.Option(min=0.05, max=0.99, help="Share of each GPU's memory.", show_default="0.9"),
]
Colocated = Annotated[
    bool, typer.Option("--colocated", help="A training shares the GPU: sleep when it says so.")
]
LoraRank = Annotated[
    int, typer.Option(min=0, help="Rank of adapters that a training loads; 0 for none.")
]
Transfer = Annotated[
    str,
    typer.Option(
        callback=_transfer,
        help="How a training hands new weights over: folder, or nccl (GPUs; never run by us).",
        autocompletion=completion.one_of(*_TRANSFERS),
    ),
]
RemoteControl = Annotated[
    bool,
    typer.Option(
        "--remote-control",
        help="Serve the control routes (weights, sleep) beyond this machine, too.",
    ),
]
PrintCommand = Annotated[
    bool, typer.Option("--print", help="Print the command for Slurm or Kubernetes instead.")
]


@serve_app.command()
def engine(  # noqa: PLR0913 - the options of the command
    model: EngineModel,
    gpus: Gpus = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    dtype: Precision = "auto",
    context: Context = 16_384,
    memory_share: MemoryShare = None,
    colocated: Colocated = False,
    lora_rank: LoraRank = 0,
    transfer: Transfer = "folder",
    remote_control: RemoteControl = False,
    print_command: PrintCommand = False,
) -> None:
    """Serve a model by vLLM, for --engine vllm; Ctrl-C stops it.

    vLLM runs in an environment of its own: that of CODEDANCE_VLLM_PYTHON, or one that is made once.
    """
    from ....policies.loading import NANO_FOLDER
    from ...config.home import find_home
    from ...runs.processes import free_port, interruptible
    from ...serving.engine.command import EngineOptions, shell_command
    from ...serving.engine.server import running_engine
    from ..output import say

    cards = _gpus(gpus)
    options = EngineOptions(
        host=host,
        port=port or free_port(),
        gpus=cards,
        dtype=dtype,
        context=context,
        memory_share=_share(memory_share, is_planned=colocated and bool(cards)),
        colocated=colocated,
        lora_rank=lora_rank,
        transfer=transfer,
        remote_control=remote_control,
    )
    folder = str(NANO_FOLDER) if model == "nano" else model
    if print_command:
        say(shell_command(folder, options))
        return
    log = find_home().root / "logs" / f"vllm-{options.port}.log"
    with (
        contextlib.suppress(KeyboardInterrupt),
        interruptible(),
        running_engine(folder, options, log=log, say=say) as running,
    ):
        say(f"{model} at {running.url}")
        together = " --colocated" if colocated else ""
        say(f"use it  --engine vllm --engine-url {running.url}{together}")
        say("Ctrl-C stops it")
        while True:
            running.service.revive(say)
            time.sleep(_LOOK_SECONDS)
