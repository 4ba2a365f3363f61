"""Judges one policy on a suite, outside any pipeline run; interrupted, it goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...policies.endpoint import OPENAI_PREFIX
from ..desk import Desk, open_desk
from ..flows_file import load_flows_file, load_preset
from ..results import summarise
from ..server_settings import ServerSettings
from ..settings import Preset
from ..stages.context import StageInterrupted
from ..stages.orders import resolve_suite
from ..stages.runner import FRESH, Order, make_request, run_request
from .output import print_table, say, summary_document
from .server_options import with_server


@dataclass(frozen=True, slots=True)
class Judging:
    """How a policy is judged.

    Attributes:
        preset: Whose parameters; None for those of ``quick``.
        fresh: Whether to do it again where it was done.
        sandbox: Backend; None for the preset's.
        server: Of a policy ``openai:MODEL``, over the preset's; None leaves one as it is.
    """

    preset: str | None = None
    fresh: bool = False
    sandbox: str | None = None
    server: Mapping[str, float | str | None] = field(
        default_factory=dict[str, "float | str | None"]
    )


def judge(policy: str, suite: str, limit: int | None, how: Judging) -> object:
    """Judge a policy greedy and sampled, print the table, store every episode; give a document."""
    known = load_flows_file().presets
    settings = load_preset(how.preset) if how.preset else known.get("quick", Preset())
    if how.sandbox is not None:
        settings = settings.with_backend(how.sandbox)
    server = with_server(settings.server, **how.server)
    changes: dict[str, Any] = {"suite": resolve_suite(suite), "server": server}
    if limit is not None:
        changes["evaluate"] = settings.evaluate.model_copy(update={"limit": limit})
    order = Order("evaluate", settings.model_copy(update=changes))
    with open_desk() as desk:
        parameters = _parameters(policy, order)
        if how.fresh:
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
        **_where(policy, order.preset.server),
    }


def _where(policy: str, server: ServerSettings) -> dict[str, str | None]:
    """Name the server, which with the model's name says who is judged."""
    if not policy.startswith(OPENAI_PREFIX):
        return {}
    return {"base_url": server.base_url or os.environ.get("OPENAI_BASE_URL")}


def _short_name(policy: str) -> str:
    """Give a name for tables; a slash would be read as the mode's."""
    return policy.removeprefix(OPENAI_PREFIX).rstrip("/").split("/")[-1]


def _weights(folder: Path) -> Mapping[str, str]:
    """Say which weights a folder holds now: another training into it is another policy."""
    return {
        path.name: f"{path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in sorted(folder.glob("*.safetensors"))
    }
