"""``codedance emergence``: code that emerged in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import Json, RunName

if TYPE_CHECKING:
    from ...analysis.emergence import Emergence, Use


def emergence(
    run: RunName = "latest",
    rows: Annotated[int, typer.Option(min=1, help="Rows of each table.")] = 10,
    json: Json = False,
) -> None:
    """Show the calls and compositions of training, compared with the demonstrations."""
    from ...analysis.emergence import training_emergence
    from ...runs.requests import find_pipeline
    from ...runs.runner import StageError, find_input
    from ...runs.session import open_session
    from ..document import document
    from ..output import say

    with document(json) as publish, open_session(track=False) as session:
        found = session.store.lineage.get(run)
        if found.stage != "grpo":
            found = find_input(session, find_pipeline(session, run), "grpo")
        made = training_emergence(session.store, found)
        if made is None:
            raise StageError(
                f"{found.id} has no curation and cold start among its inputs, whose demonstrations "
                "its code is compared with"
            )
        for line in emergence_lines(made, rows):
            say(line)
        publish(made)


def emergence_lines(found: Emergence, rows: int) -> list[str]:
    """Return the tables, 80 columns wide."""
    if not found.trajectories:
        return ["no trajectory of this training ran code"]
    novel = [use for use in found.calls if use.is_novel]
    unseen = [use for use in found.compositions if use.is_novel]
    lines = [
        f"{found.trajectories} trajectories with code, {found.demonstrations} demonstrations",
        *_table(f"novel calls ({len(novel)})", novel[:rows]),
        *_table(f"unseen compositions ({len(unseen)})", unseen[:rows]),
        *_table("calls", found.calls[:rows]),
        *_table("compositions", found.compositions[:rows]),
    ]
    return lines + _transfer_lines(found, rows)


def _table(title: str, uses: Sequence[Use]) -> list[str]:
    head = f"{title:<36}{'demos':>8}{'first':>8}{'last':>8}{'right':>8}{'count':>7}"
    body = [
        f"{use.name[:35]:<36}{use.demonstrations:>8.1%}{use.first:>8.1%}{use.last:>8.1%}"
        f"{use.right:>8.0%}{use.count:>7}"
        for use in uses
    ]
    return ["", head, *(body or ["(none)"])]


def _transfer_lines(found: Emergence, rows: int) -> list[str]:
    """Return the largest entries of the transfer matrix."""
    entries = sorted(found.transfer.items(), key=lambda item: (-item[1], item[0]))[:rows]
    lines = [
        f"{home} -> {family}: {share:.1%} of {family} use a call shown for {home}, not for {family}"
        for (home, family), share in entries
    ]
    return ["", "transfer between families", *(lines or ["(none)"])]
