"""Content of each command's ``--help``: flags without a value, and examples at its end.

Tests parse every example.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import typer
import typer.core

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "codedance run --preset smoke",
        "codedance run --tasks mine.jsonl --seed 1",
        "codedance run --preset quick --set grpo.steps=300",
        "codedance run --preset smoke --json",
    ),
    "curate": ("codedance curate --preset smoke", "codedance curate --tasks mine.jsonl"),
    "sft": ("codedance sft", "codedance sft --from latest --refresh"),
    "grpo": ("codedance grpo", "codedance grpo --from latest --seed 1"),
    "evaluate": (
        "codedance evaluate --from latest",
        "codedance evaluate --policy nano --limit 210",
        "codedance evaluate --policy oracle --suite mine.jsonl --json",
        "codedance evaluate --policy openai:mine --notes checkpoints/mine --limit 42",
    ),
    "rescore": ("codedance rescore latest",),
    "report": ("codedance report latest",),
    "runs": ("codedance runs", "codedance runs --stage grpo --limit 5 --json"),
    "view": (
        "codedance view latest --stage grpo --stage curate",
        "codedance view latest quick-20261122-200844-3040",
    ),
    "ask": (
        'codedance ask photo.jpg "How many red objects are there?"',
        'codedance ask photo.jpg "What is this?" --policy Qwen/Qwen2.5-VL-7B-Instruct',
        'codedance ask photo.jpg "What is this?" --policy openai:mine --notes mine',
    ),
    "play": (
        "codedance play --family bars --difficulty hard",
        "codedance play --policy nano --family count --seed 5",
        "codedance play --policy hand",
    ),
    "plan": (
        "codedance plan Qwen/Qwen2.5-VL-7B-Instruct --gpus 1,8 --gpu h100",
        "codedance plan Qwen/Qwen2.5-VL-3B-Instruct --gpus 1 --colocated --gpu 4090",
    ),
    "attack-reward": (
        "codedance attack-reward --reward bat",
        "codedance attack-reward --reward outcome --term terms.py:brevity=-0.01",
    ),
    "emergence": ("codedance emergence latest --rows 20",),
    "probe": ("codedance probe latest --limit 42", "codedance probe --policy nano"),
    "scale": ("codedance scale --policy nano --samples 8",),
    "ui": ("codedance ui", "codedance ui --mlflow-port 5000 --prefect-port 4200"),
    "doctor": ("codedance doctor", "codedance doctor --json"),
    "store list": ("codedance store list", "codedance store list --stage grpo --limit 5 --json"),
    "store show": ("codedance store show latest", "codedance store show 1207"),
    "store export": (
        "codedance store export my-run",
        "codedance store export two --run quick-20261122 --run sft- --no-tokens",
    ),
    "store prune": (
        "codedance store prune quick-20261122-200844-3040",
        "codedance store prune --older-than 30 --dry-run",
    ),
    "store verify": ("codedance store verify", "codedance store verify --json"),
    "flows serve": (
        "codedance flows serve",
        "codedance flows serve --no-mlflow --prefect-port 4200",
    ),
    "flows deploy": ("codedance flows deploy",),
    "metrics": (
        "codedance metrics latest --to tensorboard",
        "codedance metrics --all --to wandb --to tensorboard",
    ),
    "mlflow sync": ("codedance mlflow sync latest", "codedance mlflow sync --all"),
    "sandbox build": (
        "codedance sandbox build",
        "codedance sandbox build --libraries numpy,PIL,cv2 --tag ours",
    ),
    "sandbox digest": ("codedance sandbox digest",),
    "serve engine": (
        "codedance serve engine nano",
        "codedance serve engine Qwen/Qwen2.5-VL-7B-Instruct --gpus 0,1 --print",
    ),
    "serve model": (
        "codedance serve model nano --port 8000",
        "codedance serve model oracle --port 0",
    ),
}


class PlainCommand(typer.core.TyperCommand):
    """A command whose help shows flags without a value."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - typer's own click, or click
        """Return the parameters in the form that help shows."""
        return _shown_plainly(super().get_params(ctx))


class PlainGroup(typer.core.TyperGroup):
    """A group whose help shows flags without a value."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - typer's own click, or click
        """Return the parameters in the form that help shows."""
        return _shown_plainly(super().get_params(ctx))


def _shown_plainly(parameters: Sequence[Any]) -> list[Any]:
    """Remove the type of flags, and the word range of numbers, whose bounds are shown beside it.

    typer prints ``<bool>`` beside ``--json`` as if it took a value.
    """
    for parameter in parameters:
        kind = getattr(parameter, "type_descriptor", None)
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif getattr(kind, "is_ranged", False) and parameter.metavar is None:
            parameter.metavar = f"<{getattr(kind, 'ranged_type_name', 'number')}>"
    return list(parameters)


def add_examples(app: typer.Typer, prefix: str = "") -> None:
    """Append the examples to the help of every command of ``app`` that has some.

    The text before them is wrapped to the terminal, regardless of the docstring's lines.
    """
    for command in app.registered_commands:
        command.cls = PlainCommand
        function = command.callback
        command.help = flowing(inspect.getdoc(function) or "")
        own = command.name or (function.__name__.replace("_", "-") if function else "")
        lines = EXAMPLES.get(f"{prefix}{own}")
        if lines is not None:
            command.epilog = "\n\n".join(("For example", *(f"  {line}" for line in lines)))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.typer_instance.info.cls = PlainGroup
            add_examples(group.typer_instance, f"{prefix}{group.name} ")


def flowing(text: str) -> str:
    """Return each paragraph as one line, for the terminal to wrap."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
