"""Judges one policy on a suite, outside any pipeline run; interrupted, it goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..desk import Desk, open_desk
from ..flows_file import load_flows_file, load_preset
from ..results import summarise
from ..settings import Preset
from ..stages.context import StageInterrupted
from ..stages.orders import resolve_suite
from ..stages.runner import FRESH, Order, make_request, run_request
from .output import print_table, say, summary_document


def judge(
    policy: str,
    suite: str,
    limit: int | None,
    *,
    preset: str | None,
    fresh: bool,
    sandbox: str | None = None,
) -> object:
    """Judge a policy greedy and sampled, print the table, store every episode; give a document."""
    settings = load_preset(preset) if preset else load_flows_file().presets.get("quick", Preset())
    if sandbox is not None:
        settings = settings.with_backend(sandbox)
    changes: dict[str, Any] = {"suite": resolve_suite(suite)}
    if limit is not None:
        changes["evaluate"] = settings.evaluate.model_copy(update={"limit": limit})
    order = Order("evaluate", settings.model_copy(update=changes))
    with open_desk() as desk:
        parameters = _parameters(policy, order)
        if fresh:
            parameters[FRESH] = str(len(desk.store.lineage.find(stage="evaluate")))
        request = make_request("evaluate", order, parameters, {})
        try:
            run = run_request(desk, request, order.preset, parent=None)
        except (StageInterrupted, KeyboardInterrupt):
            say("stopped; the same command goes on where it was")
            raise
        return _print(desk, run.id)


def _print(desk: Desk, run_id: str) -> object:
    summary = summarise(desk.store, desk.store.lineage.get(run_id))
    print_table(summary)
    for phase, rate in summary.within_tenth.items():
        say(f"{phase}: {rate.share:.1%} within 10 % of the true count")
    say(f"stored as {run_id}")
    return {"run": run_id, **summary_document(summary)}


def _parameters(policy: str, order: Order) -> dict[str, Any]:
    return {
        "suite": order.preset.suite,
        "evaluate": order.preset.evaluate.model_dump(),
        "max_new_tokens": order.preset.max_new_tokens,
        "policies": {_short_name(policy): policy},
        "weights": _weights(Path(policy)),
    }


def _short_name(policy: str) -> str:
    """Give a name for tables; a slash would be read as the mode's."""
    return policy.rstrip("/").split("/")[-1]


def _weights(folder: Path) -> Mapping[str, str]:
    """Say which weights a folder holds now: another training into it is another policy."""
    return {
        path.name: f"{path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in sorted(folder.glob("*.safetensors"))
    }
