"""docs/rooms.svg, the rooms and who imports whom, drawn from the imports: `python docs/drawing.py`.

An arrow that follows from others is left out: what `integration` imports, `cli` may import as well. Each room stands
just below the lowest that imports it, with the first sentence of its `__init__.py`.
"""

from __future__ import annotations

import ast
import textwrap
from functools import cache
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "synthgen"
DRAWING = Path(__file__).with_name("rooms.svg")
GROUND = ("contracts", "errors", "config", "command_line", "runs", "science")  # free to all
WIDTH, BOX, HEIGHT, ROW = 900, 212, 76, 112


def imports() -> dict[str, set[str]]:
    """Room -> what its modules import, in functions too; the ground is one room."""
    name = lambda part: "ground" if part in GROUND else part
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if room.startswith("__"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module is not None and module.startswith("synthgen."):
                found.setdefault(name(room), set()).add(name(module.split(".")[1]))
    return {room: others - {room} for room, others in found.items()}


def reduced(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that follow from no others."""
    far = lambda room: {one for other in arrows[room] for one in _below(arrows, other)}
    return {room: others - far(room) for room, others in arrows.items()}


def _below(arrows: dict[str, set[str]], room: str) -> set[str]:
    return arrows[room].union(*(_below(arrows, other) for other in arrows[room]))


def places(arrows: dict[str, set[str]]) -> dict[str, tuple[float, int]]:
    """Room -> where the middle of its box is, and its row from the top."""

    @cache
    def row(room: str) -> int:
        return 1 + max((row(one) for one, others in arrows.items() if room in others), default=-1)

    found: dict[str, tuple[float, int]] = {}
    for level in range(max(map(row, arrows)) + 1):
        here = sorted((r for r in arrows if row(r) == level), key=lambda r: (-len(_below(arrows, r)), r))
        for k, room in enumerate(here):
            above = [found[one][0] for one, others in arrows.items() if room in others and one in found]
            alone = sum(above) / len(above) if above else WIDTH / 2
            found[room] = (WIDTH * (k + 0.5) / len(here) if len(here) > 1 else alone, level)
    return found


def drawing() -> str:
    """The SVG."""
    arrows = reduced(imports())
    where = places(arrows)
    lowest = max(row for _, row in where.values())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {ROW * lowest + HEIGHT + 20}" '
        'font-family="sans-serif" font-size="11">',
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#567"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for room, others in sorted(arrows.items()):
        x, y = where[room][0], 10 + ROW * where[room][1] + HEIGHT
        for other in sorted(others):
            to = x if other == "ground" else where[other][0] + (x - where[other][0]) * 0.25
            lines.append(
                f'<line x1="{x:.0f}" y1="{y}" x2="{to:.0f}" y2="{10 + ROW * where[other][1]}" stroke="#567" '
                'marker-end="url(#a)"/>'
            )
    for room, (x, row) in where.items():
        wide = WIDTH - 20 if room == "ground" else BOX
        left, top = (10 if room == "ground" else x - BOX / 2), 10 + ROW * row
        middle = left + wide / 2
        lines.append(
            f'<rect x="{left:.0f}" y="{top}" width="{wide}" height="{HEIGHT}" rx="6" fill="#eef3f8" stroke="#567"/>'
        )
        lines.append(
            f'<text x="{middle:.0f}" y="{top + 17}" text-anchor="middle" font-size="13" '
            f'font-weight="bold">{room}</text>'
        )
        for k, words in enumerate(textwrap.wrap(_about(room), 33 if wide == BOX else 150)[:4]):
            lines.append(f'<text x="{middle:.0f}" y="{top + 31 + 12 * k}" text-anchor="middle">{escape(words)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _about(room: str) -> str:
    if room == "ground":
        there = [part for part in GROUND if (PACKAGE / part).exists() or (PACKAGE / f"{part}.py").exists()]
        return f"{', '.join(there)}: imported by all, import no room"
    about = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    return about.split("\n\n")[0].replace("`", "").rstrip(".")


if __name__ == "__main__":
    DRAWING.write_text(drawing(), encoding="utf-8")
