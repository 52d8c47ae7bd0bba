"""Step charts as SVG: lines over one axis of time."""

import math
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT = 960, 44, 10
TOP, HEIGHT, FOOT = 6, 110, 18
ROW = 14
# Of the labels' font, about.
CHARACTER = 6.0

Points = list[tuple[float, float | None]]


class Axis:
    """Seconds since the demo started, and its steps: (title, begin, seconds)."""

    def __init__(self, begin: float, end: float, steps: list[tuple[str, float, float]]):
        self.begin, self.end, self.steps = begin, max(end, begin + 1), steps

    def x(self, at: float) -> float:
        share = (at - self.begin) / (self.end - self.begin)
        return LEFT + min(max(share, 0), 1) * (WIDTH - LEFT - RIGHT)

    def times(self) -> list[float]:
        """About ten round ones."""
        step = ticks((self.end - self.begin) / 2.5)[1]
        return [n * step for n in range(math.ceil(self.begin / step), math.floor(self.end / step) + 1)]

    def visible(self):
        """Number, title, left and right of the steps that the axis shows."""
        for number, (title, begin, seconds) in enumerate(self.steps, 1):
            if begin + seconds > self.begin and begin < self.end:
                yield number, title, self.x(begin), self.x(begin + seconds)

    def bands(self, height: float) -> str:
        return "".join(
            f'<rect class="band" x="{left:.1f}" y="0" width="{right - left:.1f}" height="{height}"/>'
            for number, _, left, right in self.visible()
            if number % 2
        )


@dataclass
class Line:
    """`style`: classes of the page's style sheet."""

    name: str
    points: Points
    style: str


@dataclass
class Chart:
    title: str
    lines: list[Line]

    def html(self, axis: Axis) -> str:
        values = [v for line in self.lines for _, v in line.points if v is not None]
        levels = ticks(max(values, default=0))
        y = lambda value: TOP + HEIGHT * (1 - value / levels[-1])  # noqa: E731
        grid = "".join(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
            for v in levels
        )
        seconds = "".join(
            f'<text x="{axis.x(at):.1f}" y="{TOP + HEIGHT + 14}" text-anchor="middle">{at:g}</text>'
            for at in axis.times()
        )
        drawn = "".join(f'<path class="line {line.style}" d="{path(line.points, axis, y)}"/>' for line in self.lines)
        key = "".join(
            f'<span><svg viewBox="0 0 26 8" aria-hidden="true"><path class="line {line.style}" d="M0 4H26"/></svg>{escape(line.name)}</span>'
            for line in self.lines
        )
        title = escape(self.title)
        return f"""<h2>{title}</h2>
<p class="key">{key}</p>
<svg viewBox="0 0 {WIDTH} {TOP + HEIGHT + FOOT}" role="img" aria-label="{title}">{axis.bands(TOP + HEIGHT)}{grid}{seconds}{drawn}</svg>"""


def path(points: Points, axis: Axis, y) -> str:
    """A value holds until the next one is told; where nobody says one the line has a gap."""
    parts, last = [], None
    for at, value in points:
        if value is not None and last is None:
            parts.append(f"M{axis.x(at):.1f} {y(value):.1f}")
        elif value is not None:
            # Only the end of a level run is drawn.
            if parts[-1].startswith("H"):
                parts.pop()
            parts.append(f"H{axis.x(at):.1f}")
            if value != last:
                parts.append(f"V{y(value):.1f}")
        last = value
    return "".join(parts)


def marks_row(axis: Axis, marks: list[tuple[float, str]]) -> str:
    """Numbers of the steps, and below them what happened, in as many rows as the words need."""
    numbers = "".join(
        f'<text x="{(left + right) / 2:.1f}" y="12" text-anchor="middle"><title>{escape(title)}</title>{number}</text>'
        for number, title, left, right in axis.visible()
    )
    ends, drawn = [], []
    for at, words in sorted(marks):
        x, width = axis.x(at), len(words) * CHARACTER + 10
        # At the right end the words stand before their mark.
        before = x + width > WIDTH
        left = x - width if before else x
        row = next((i for i, end in enumerate(ends) if end <= left), len(ends))
        ends[row : row + 1] = [left + width]
        foot = 18 + (row + 1) * ROW
        drawn.append((x, foot, f'text-anchor="{"end" if before else "start"}"', -4 if before else 4, words))
    height = 18 + len(ends) * ROW + 6
    labels = "".join(
        f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{foot - 10}" y2="{height}"/>'
        f'<text x="{x + shift:.1f}" y="{foot}" {anchor}>{escape(words)}</text>'
        for x, foot, anchor, shift, words in drawn
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Steps and events">'
        f"{axis.bands(height)}{numbers}{labels}</svg>"
    )


def ticks(highest: float) -> list[float]:
    """Round numbers from 0 to at least `highest`: four to six of them."""
    if highest <= 0:
        return [0, 1]
    rough = highest / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    if highest >= 2:
        # Nodes and replicas come whole.
        step = max(step, 1)
    return [round(step * n, 6) for n in range(math.ceil(highest / step - 1e-9) + 1)]
