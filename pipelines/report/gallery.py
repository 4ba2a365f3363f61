"""The gallery: a few example episodes. All text by a model is escaped; nothing can run."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from ...envs.parsing import thought_in
from ...envs.types import Difficulty, Task, Trajectory
from ...sandbox.types import Execution
from ..charts.templates import render
from ..store.episodes import Episode
from ..store.store import Store

if TYPE_CHECKING:
    from markupsafe import Markup

ASSETS = Path(__file__).parent / "assets"
"""Folder of the report's templates."""
SHOWN_EACH = 6
LARGEST_SIDE = 360


@dataclass(frozen=True, slots=True)
class GallerySection:
    """A kind of episode: its heading, its meaning, and the episodes shown."""

    title: str
    meaning: str
    episodes: tuple[Episode, ...]


def choose_sections(episodes: Sequence[Episode], *, seed: int = 0) -> list[GallerySection]:
    """Choose right answers, wrong answers and needless tool use, spread over families."""
    valid = [e for e in episodes if e.is_valid and e.accuracy is not None]
    right = [e for e in valid if e.accuracy == 1.0]
    wrong = [e for e in valid if e.accuracy == 0.0]
    needless = [e for e in valid if e.difficulty is Difficulty.EASY and e.tool_calls > 0]
    kinds = (
        ("Right, with tools", "Code was run, and the answer is right.", _with_tools(right)),
        ("Right at a glance", "The answer is right, and no code was run.", _without(right)),
        ("Wrong", "The answer is wrong, or there was none.", wrong),
        (
            "Needless tools",
            "Easy tasks, whose answer can be seen, and code all the same.",
            needless,
        ),
    )
    return [
        GallerySection(title, meaning, tuple(_spread(chosen, seed)))
        for title, meaning, chosen in kinds
    ]


def render_sections(store: Store, sections: Sequence[GallerySection]) -> Markup:
    """Render the gallery."""
    ids = list(dict.fromkeys(e.id for section in sections for e in section.episodes))
    found = dict(zip(ids, store.trajectories(ids), strict=True))
    keys = list(dict.fromkeys(e.task_key for section in sections for e in section.episodes))
    tasks = store.tasks(keys, with_images=False)
    cards = {
        e.id: render_episode(found[e.id], tasks[e.task_key], e.phase)
        for section in sections
        for e in section.episodes
    }
    return render(ASSETS, "gallery.html.j2", sections=sections, cards=cards)


def render_episode(trajectory: Trajectory, task: Task, phase: str) -> Markup:
    """Render one episode: question and images, then each turn."""
    return render(
        ASSETS,
        "episode.html.j2",
        trajectory=trajectory,
        task=task,
        phase=phase,
        images=[image for message in trajectory.opening for image in message.images],
        verdict="no answer" if trajectory.answer is None else f"answered {trajectory.answer}",
        thought_in=thought_in,
        output_of=_output_of,
        encoded=_encoded,
        short=_short,
    )


def _output_of(execution: Execution) -> str:
    """Return what a block printed and its error; empty if it returned images alone."""
    parts = (execution.stdout.strip(), execution.stderr.strip(), execution.error)
    return "\n".join(filter(None, parts)) or ("" if execution.images else "(no output)")


def _encoded(image: Image.Image) -> str:
    """Return a small copy of an image as PNG in base 64."""
    shown = image.convert("RGB")
    shown.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit} more)"


def _with_tools(episodes: Sequence[Episode]) -> list[Episode]:
    return [e for e in episodes if e.tool_calls > 0]


def _without(episodes: Sequence[Episode]) -> list[Episode]:
    return [e for e in episodes if e.tool_calls == 0]


def _spread(episodes: Sequence[Episode], seed: int) -> list[Episode]:
    """Draw a few episodes, from as many families as possible."""
    order = list(episodes)
    random.Random(seed).shuffle(order)
    chosen: list[Episode] = []
    while order and len(chosen) < SHOWN_EACH:
        families: set[str] = set()
        for episode in list(order):
            if episode.family not in families and len(chosen) < SHOWN_EACH:
                families.add(episode.family)
                chosen.append(episode)
                order.remove(episode)
    return chosen
