"""The gallery: a few example episodes. All text by a model is escaped; nothing can run."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from ...envs.parsing import thought_in
from ...envs.types import Difficulty, Ending, Task, Trajectory, Turn
from ..store.episodes import Episode
from ..store.store import Store

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


def render_sections(store: Store, sections: Sequence[GallerySection]) -> str:
    """Render the gallery."""
    ids = list(dict.fromkeys(e.id for section in sections for e in section.episodes))
    found = dict(zip(ids, store.trajectories(ids), strict=True))
    keys = list(dict.fromkeys(e.task_key for section in sections for e in section.episodes))
    tasks = store.tasks(keys, with_images=False)
    return "".join(
        _render_section(section, found, tasks) for section in sections if section.episodes
    )


def render_episode(trajectory: Trajectory, task: Task, phase: str) -> str:
    """Render one episode: question and images, then each turn."""
    pictures = "".join(_picture(i) for message in trajectory.opening for i in message.images)
    turns = "".join(_render_turn(turn) for turn in trajectory.turns)
    is_right = trajectory.accuracy == 1.0
    verdict = f"answered {trajectory.answer!s}" if trajectory.answer is not None else "no answer"
    return (
        '<article class="episode">'
        f"<header><span>{escape(task.family)}, {escape(task.difficulty)}</span>"
        f"<span>{escape(phase)}</span></header>"
        f'<p class="question">{escape(task.question)}</p>{pictures}{turns}'
        f'<p class="verdict"><b class="{"good" if is_right else "bad"}">'
        f"{'right' if is_right else 'wrong'}</b>: {escape(_short(verdict, 200))}, "
        f"truth {escape(task.answer)}{_ending(trajectory)}</p></article>"
    )


def _ending(trajectory: Trajectory) -> str:
    """Return how the episode ended, if not by an answer."""
    if trajectory.ending is Ending.ANSWERED:
        return ""
    return f", ended by {escape(trajectory.ending.replace('_', ' '))}"


def _render_section(
    section: GallerySection, found: Mapping[int, Trajectory], tasks: Mapping[str, Task]
) -> str:
    cards = "".join(
        render_episode(found[e.id], tasks[e.task_key], e.phase) for e in section.episodes
    )
    return (
        f"<h3>{escape(section.title)}</h3><p class='note'>{escape(section.meaning)}</p>"
        f'<div class="gallery">{cards}</div>'
    )


def _render_turn(turn: Turn) -> str:
    thought = thought_in(turn.text)
    parts: list[str] = []
    if thought:
        parts.append(f'<p class="thought">{escape(_short(thought, 600))}</p>')
    if turn.action.kind == "code":
        parts.append(f"<pre>{escape(_short(turn.action.content.strip(), 2000))}</pre>")
    elif turn.action.kind == "malformed":
        parts.append(f'<pre class="failed">{escape(_short(turn.text, 1000))}</pre>')
    execution = turn.execution
    if execution is not None:
        back = "\n".join(
            text
            for text in (execution.stdout.strip(), execution.stderr.strip(), execution.error or "")
            if text
        )
        style = "failed" if turn.has_failed else "back"
        empty = "" if execution.images else "(no output)"
        if back or empty:
            parts.append(f'<pre class="{style}">{escape(_short(back or empty, 2000))}</pre>')
        parts += [_picture(image) for image in execution.images]
    return "".join(parts)


def _picture(image: Image.Image) -> str:
    shown = image.convert("RGB")
    shown.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f"{image.width} by {image.height} pixels"
    return f'<img src="data:image/png;base64,{data}" alt="{size}" loading="lazy">'


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
