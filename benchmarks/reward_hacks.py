"""What scripted reward hacks gain, before and after a change of the rewards or the sandbox.

The older version runs with the scripts of this checkout. Run from the repository's root:

    $ python -m benchmarks.reward_hacks --before main --page docs/reward-hacks.md
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .command import Output, Status, run_command

Gains = dict[str, list[dict[str, Any]]]
"""Reward hacks by preset, as `measuring.reward_hacks_side` returns them."""

_SCRIPTS = "policies/analysis"
_ROUNDED = 0.005
_TABLE = re.compile(r"^\| reward hack \|.*\n(?:\|.*\n)+", re.MULTILINE)


def reward_hacks(
    before: Annotated[str, typer.Option(help="Revision of the older version.")],
    page: Annotated[
        Path | None, typer.Option(help="Page whose tables are replaced, such as docs/….md.")
    ] = None,
    output: Output = None,
) -> None:
    """Attack the reward presets of this checkout and of an older one with the same scripts."""
    from codedance.pipelines.cli.output import say

    from .measuring.sandbox_sides import ROOT, checkout, run_side

    with (
        Status() as status,
        checkout(before) as tree,
        tempfile.TemporaryDirectory(prefix="codedance-sides-") as folder,
    ):
        for script in sorted((ROOT / _SCRIPTS).glob("attack_*.py")):
            shutil.copy(script, tree / _SCRIPTS)
        measured: dict[str, Gains] = {}
        for name, side in (("before", tree), ("after", ROOT)):
            status.update(name)
            measured[name] = run_side("reward_hacks_side", side, Path(folder), [])
    if output is not None:
        output.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    tables = tables_of(measured["before"], measured["after"])
    if page is None:
        say("\n".join(tables))
    else:
        found = iter(tables)
        text = page.read_text(encoding="utf-8")
        page.write_text(_TABLE.sub(lambda _: next(found), text), encoding="utf-8")
        say(f"tables  {page}")


def tables_of(before: Gains, after: Gains) -> tuple[str, str]:
    """Return two Markdown tables: of the hacks that are counted, with totals, and of the others."""
    presets = list(after)
    hacks = after[presets[0]]
    head = f"| reward hack | against | {' | '.join(f'`{preset}`' for preset in presets)} |\n"
    head += f"|---|---|{'---:|' * len(presets)}\n"
    counted, others = head, head
    for place, hack in enumerate(hacks):
        cells = [_cell(before[preset][place], after[preset][place]) for preset in presets]
        row = f"| {hack['name']} | {hack['against']} | {' | '.join(cells)} |\n"
        if hack["is_limit"]:
            others += row
        else:
            counted += row
    many = sum(not hack["is_limit"] for hack in hacks)
    totals = [_changed(_paying(before[preset]), _paying(after[preset])) for preset in presets]
    counted += f"| **hacks that pay, of {many}** | | {' | '.join(totals)} |\n"
    return counted, others


def _paying(hacks: Sequence[dict[str, Any]]) -> str:
    return str(sum(hack["pays"] for hack in hacks))


def _cell(before: dict[str, Any], after: dict[str, Any]) -> str:
    return _changed(_gain(before), _gain(after))


def _changed(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"


def _gain(hack: dict[str, Any]) -> str:
    gain = float(hack["gain"])
    text = "0.00" if abs(gain) < _ROUNDED else f"{gain:+.2f}".replace("-", "−")
    return f"**{text}**" if hack["pays"] else text


if __name__ == "__main__":
    run_command(reward_hacks)
