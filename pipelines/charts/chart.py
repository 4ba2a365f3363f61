"""Line charts as inline SVG, coloured by the page's style sheet to support dark mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .templates import SHARED, render

Series = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 28
COLOURS = ("#8a94a3", "#1f6feb", "#d9822b", "#1a7f4b", "#8250df")


@dataclass(frozen=True, slots=True)
class _Frame:
    """Maps values to coordinates."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def line_chart(title: str, lines: Mapping[str, Series], *, smooth: int = 1) -> str:
    """Draw lines over steps; return empty text if there is nothing to draw.

    Args:
        title: Title above the chart.
        lines: Points by label, in order of the legend.
        smooth: Window of the moving average in points; the raw line stays visible behind it.
    """
    return render_chart("chart.html.j2", title, lines, smooth=smooth)


def line_picture(title: str, lines: Mapping[str, Series], *, smooth: int = 1) -> str:
    """Draw the same chart as a standalone SVG document, always in light colours."""
    return render_chart("chart.svg.j2", title, lines, smooth=smooth)


def render_chart(
    template: str,
    title: str,
    lines: Mapping[str, Series],
    *,
    smooth: int,
    colours: Sequence[str] = COLOURS,
) -> str:
    """Draw lines in one of the charts' templates; return empty text without points."""
    drawn = {label: points for label, points in lines.items() if points}
    if not drawn:
        return ""
    return render(
        SHARED,
        template,
        title=title,
        labels=list(drawn) if len(drawn) > 1 else [],
        drawing=_drawing(drawn, smooth),
        colours=colours,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=RIGHT,
    )


def _drawing(drawn: Mapping[str, Series], smooth: int) -> str:
    """Return axes and lines."""
    frame = _frame([point for points in drawn.values() for point in points])
    parts = [_axes(frame)]
    first = 1 if len(drawn) == 1 else 0  # a single line in the accent colour, not in grey
    for number, points in enumerate(drawn.values(), first):
        if smooth > 1 and len(points) > smooth:
            parts.append(_path(frame, points, f"raw c{number}"))
            points = moving_average(points, smooth)
        parts.append(_path(frame, points, f"line c{number}"))
        if len(points) == 1:
            x, y = frame.x(points[0][0]), frame.y(points[0][1])
            parts.append(f'<circle class="dot c{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    return "".join(parts)


def moving_average(points: Series, window: int) -> list[tuple[float, float]]:
    """Average each point with those before it, ``window`` points in total.

    >>> moving_average([(1, 2.0), (2, 4.0), (3, 6.0)], 2)
    [(1, 2.0), (2, 3.0), (3, 5.0)]
    """
    result: list[tuple[float, float]] = []
    for index, (x, _) in enumerate(points):
        values = [y for _, y in points[max(0, index - window + 1) : index + 1]]
        result.append((x, sum(values) / len(values)))
    return result


def _frame(points: Series) -> _Frame:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(0.0, *ys), max(ys)
    spare = (y_high - y_low) * 0.06 or 0.5
    return _Frame(
        x_low, x_high if x_high > x_low else x_low + 1, y_low - (y_low < 0) * spare, y_high + spare
    )


def _axes(frame: _Frame) -> str:
    parts: list[str] = []
    for value in _ticks(frame.y_low, frame.y_high):
        y = frame.y(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{value:g}</text>'
        )
    for value in (tick for tick in _ticks(frame.x_low, frame.x_high) if tick == int(tick)):
        x = frame.x(value)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{value:g}</text>')
    return "".join(parts)


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round values (1, 2 or 5 times a power of ten apart) within the bounds."""
    rough = (high - low) / wanted
    power = 10.0 ** _floor_log10(rough)
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = -(-low // step)
    count = int(high // step - first) + 1
    return [round((first + n) * step, 10) for n in range(count)]


def _floor_log10(value: float) -> int:
    return int(f"{value:e}".split("e")[1])


def _path(frame: _Frame, points: Series, style: str) -> str:
    places = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
    return f'<polyline class="{style}" points="{places}"/>'
