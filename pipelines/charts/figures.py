"""Training curves as SVG files, for pages that show images instead of our report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .chart import HEIGHT, WIDTH, Series, line_chart

MARGIN = 34
_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#6a7078}text.title{font-size:13px;font-weight:600;"
    "fill:#1c1f23}.grid{stroke:#e4e1da}polyline{fill:none;stroke-linejoin:round}"
    ".line{stroke-width:2}.raw{stroke-width:1;opacity:.3}.dot{fill:currentColor}"
)
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
    lines = {label: points for label, points in lines.items() if points}
    figure = line_chart(title, lines, smooth=SMOOTH)
    if not figure:
        return ""
    inner = figure[figure.index(">", figure.index("<svg")) + 1 : figure.index("</svg>")]
    first = 1 if len(lines) == 1 else 0
    rules = "".join(
        f".c{n}{{stroke:{colour};color:{colour}}}" for n, colour in _colours(first + len(lines))
    )
    names = list(lines) if len(lines) > 1 else []
    rows = -(-len(names) // 3)
    top = MARGIN + 16 * rows
    legend = "".join(
        f'<rect class="c{n}" fill="{_colour(n)}" x="{12 + 136 * (n % 3)}" '
        f'y="{MARGIN - 8 + 16 * (n // 3)}" width="9" height="9"/>'
        f'<text x="{26 + 136 * (n % 3)}" y="{MARGIN + 16 * (n // 3)}">{_escaped(name)}</text>'
        for n, name in enumerate(names)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + top}" '
        f'width="{2 * WIDTH}" height="{2 * (HEIGHT + top)}" role="img">'
        f"<style>{_STYLE}{rules}</style>"
        f'<rect width="{WIDTH}" height="{HEIGHT + top}" fill="#ffffff"/>'
        f'<text class="title" x="12" y="18">{_escaped(title)}</text>{legend}'
        f'<g transform="translate(0 {top - 8})">{inner}</g></svg>\n'
    )


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


def _colours(count: int) -> list[tuple[int, str]]:
    return [(n, _colour(n)) for n in range(count)]


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
