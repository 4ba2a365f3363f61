"""Training curves as SVG files, for pages that show images instead of our report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .chart import Series, render_chart

COLOURS = ("#8a94a3", "#1f6feb", "#d9822b", "#1a7f4b", "#8250df", "#b3362b", "#0a7ea4", "#6a5d00")
SMOOTH = 5

TRAINING = {
    "reward": ("reward",),
    "reward-terms": ("rewards/*/mean",),
    "accuracy-by-difficulty": ("accuracy/difficulty/*",),
    "accuracy-by-family": ("accuracy/family/*",),
    "tool-calls-by-difficulty": ("tool_calls/difficulty/*",),
    "execution-success": ("execution_success",),
    "lengths": ("completion_length/mean", "completion_length/max"),
    "entropy": ("entropy",),
    "loss": ("loss",),
    "gradient-norm": ("grad_norm",),
}
"""Metrics in each file, by file name; ``*`` stands for any part of a name."""


def write_figures(folder: Path, figures: Mapping[str, Series]) -> list[Path]:
    """Draw the curves of the available metrics; return the files."""
    written: list[Path] = []
    for name, patterns in TRAINING.items():
        lines = _chosen(figures, patterns)
        text = standalone_chart(name.replace("-", " "), lines)
        if text:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.svg"
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def standalone_chart(title: str, lines: Mapping[str, Series]) -> str:
    """Return a line chart as an SVG document, its legend above it; empty text without points."""
    return render_chart("figure.svg.j2", title, lines, smooth=SMOOTH, colours=COLOURS)


def _chosen(figures: Mapping[str, Series], patterns: tuple[str, ...]) -> dict[str, Series]:
    """Return the metrics that match the patterns, by the part of the name that ``*`` matched."""
    found: dict[str, Series] = {}
    for pattern in patterns:
        head, star, tail = pattern.partition("*")
        for name in sorted(figures):
            is_one = name.startswith(head) and name.endswith(tail) and len(name) > len(head + tail)
            if star and is_one:
                found[name[len(head) : len(name) - len(tail)]] = figures[name]
            elif not star and name == pattern:
                found[name] = figures[name]
    return found
