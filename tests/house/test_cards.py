"""Everything packaged has a card, and the card of the generator names what it learned from. The figures in cards are
inserted as those of every page (test_figures)."""

import json
from pathlib import Path

import pytest

from synthgen.generator.model_card import model_card

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "synthgen").glob("*/packaged/*")), ids=lambda p: "_".join(p.parts[-3:])
)
def test_every_packaged_folder_has_a_card_with_its_hash(folder):
    (about,) = folder.glob("*.json")
    given = json.loads(about.read_text())
    assert f"Hash `{given.get('hash') or given['weights_hash']}`" in (folder / "README.md").read_text()


def test_the_card_of_the_generator_names_every_cohort_that_it_learned_from():
    folder = ROOT / "synthgen" / "generator" / "packaged" / "phantom64"
    card, about = (folder / "README.md").read_text(), json.loads((folder / "config.json").read_text())
    start = model_card(about).split("## Measured quality")[0]
    assert card.startswith(start)
    seen = [about["provenance"], *about["provenance"]["also"]]
    for one in seen:
        assert f"- Cohort `{one['cohort_hash']}`, {len(one['patients']):,} patients" in start
