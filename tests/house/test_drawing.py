"""The drawing of the rooms is that of the imports."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

spec = importlib.util.spec_from_file_location("drawing", DOCS / "drawing.py")
drawing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(drawing)


@pytest.mark.slow
def test_the_drawing_is_fresh():
    assert drawing.DRAWING.read_text(encoding="utf-8") == drawing.drawing(), "run `python docs/drawing.py`"


def test_an_arrow_that_follows_from_others_is_left_out():
    arrows = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert drawing.reduced(arrows) == {"a": {"b"}, "b": {"c"}, "c": set()}


@pytest.mark.slow
def test_every_room_stands_below_all_that_import_it():
    arrows = drawing.imports()
    rows = {room: row for room, (_, row) in drawing.places(arrows).items()}
    assert all(rows[other] > rows[room] for room, others in arrows.items() for other in others)
    boxes = re.findall(r'font-weight="bold">(\w+)<', drawing.drawing())
    assert sorted(boxes) == sorted(rows) and {"cli", "cubes", "generator", "ground", "integration"} <= set(boxes)
