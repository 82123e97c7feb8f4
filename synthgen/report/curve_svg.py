"""One curve over the step as a small drawing (SVG) that stands in a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 190, 58, 8, 26, 24
MOST_POINTS = 400  # more cannot be distinguished at this size
LOGARITHMIC = 50.0  # ratio of largest to smallest value from which the axis is logarithmic


def curve_svg(name: str, points: Sequence[tuple[float, float]]) -> str:
    """The curve of `points` (step, value), values finite; thinned to what can be seen, the last point kept."""
    thin = list(points[:: max(1, math.ceil(len(points) / MOST_POINTS))])
    if thin[-1] != points[-1]:
        thin.append(points[-1])
    steps, values = [p[0] for p in thin], [p[1] for p in thin]
    low, high = min(values), max(values)
    log = low > 0 and high / low > LOGARITHMIC
    scale = math.log if log else float
    bottom, top = scale(low), scale(high)
    if top - bottom < 1e-12:
        bottom, top = bottom - 1, top + 1
    first, last = steps[0], max(steps[-1], steps[0] + 1)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / (last - first)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (scale(value) - bottom) / (top - bottom)

    path = "L".join(f"{x(s):.1f},{y(v):.1f}" for s, v in thin)
    parts = [f'<text x="4" y="14" class="name">{escape(name)}</text>']
    if log:
        parts.append(f'<text x="{WIDTH - RIGHT}" y="14" text-anchor="end">logarithmic</text>')
    for value in dict.fromkeys((low, high)):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step, anchor in ((first, "start"), (steps[-1], "end")):
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{step:,.0f}</text>')
    parts.append(f'<path d="M{path}"/>')
    if len(thin) < 30:
        parts += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="2"/>' for s, v in thin]
    words = f"{name} over the step: from {points[0][1]:.4g} to {points[-1][1]:.4g}"
    head = f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words, quote=True)}">'
    return head + "".join(parts) + "</svg>"
