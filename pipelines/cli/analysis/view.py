"""``codedance view``: a page for inspecting a run's trajectories."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import completion
from ..options import Json, RunName

Other = Annotated[
    str | None,
    typer.Argument(
        metavar="OTHER",
        help="Second run to compare on the same tasks.",
        autocompletion=completion.runs,
    ),
]
Stages = Annotated[
    list[str] | None,
    typer.Option("--stage", help="Stage to show: evaluate, grpo, curate. May be repeated."),
]
Inline = Annotated[
    int, typer.Option(min=0, help="Megabytes in the page itself; the rest goes to files.")
]


def view(
    run: RunName = "latest",
    other: Other = None,
    stage: Stages = None,
    inline: Inline = 20,
    json: Json = False,
) -> None:
    """Write an HTML page of a run's trajectories, or of two runs."""
    from ...runs.session import open_session
    from ...viewer import make_viewer
    from ...viewer.plan import SHOWN_STAGES
    from ..document import document
    from ..output import say
    from .judge import find_judged

    with document(json) as publish, open_session(track=False) as session:
        runs = [find_judged(session, name) for name in (run, other) if name is not None]
        folder = session.home.reports / runs[0].id
        made = make_viewer(
            session.store,
            session.home,
            runs,
            folder,
            stages=stage or SHOWN_STAGES,
            inline=inline * 1_000_000,
        )
        publish(made)
        where = "" if made.inline == made.count else f", {made.inline:,} of them in the page itself"
        say(f"{made.count:,} trajectories{where}; {made.megabytes:,.0f} MB")
        if made.missing:
            say(f"{made.missing} images are missing from the store; the page shows where")
        say(f"open {made.html}")
