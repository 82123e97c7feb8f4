"""Everything packaged has a card, and the cards say what the files beside them hold."""

import json
import re
from pathlib import Path

import pytest

from synthgen.generator.model_card import model_card
from synthgen.quality.gates import load_gates

ROOT = Path(__file__).parents[2]
PACKAGED = ROOT / "synthgen" / "quality" / "packaged"


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "synthgen").glob("*/packaged/*")), ids=lambda p: "_".join(p.parts[-3:])
)
def test_every_packaged_folder_has_a_card_with_its_hash(folder):
    (about,) = folder.glob("*.json")
    assert f"Hash `{json.loads(about.read_text())['hash']}`" in (folder / "README.md").read_text()


def test_the_card_of_the_gates():
    about = json.loads((PACKAGED / "phantom64" / "gates.json").read_text())
    card = re.sub(r"\s+", " ", (PACKAGED / "phantom64" / "README.md").read_text())
    seen, (unseen,) = about["provenance"], about["provenance"]["also"]
    learned = len(about["networks"]["encoder"]["trained_on"]["patients"])
    near, plausible = about["authenticity"], about["plausible"]
    calibration = near["patients"] - len(unseen["patients"])
    sizes = [s["size"] for s in about["sets"]]
    assert {s["resamples"] for s in about["sets"]} == {200}
    for said in (
        f"`{seen['cohort_hash']}`",
        f"{len(seen['patients']) - calibration} training and {calibration} calibration patients",
        f"{len(unseen['patients']):,} of cohort `{unseen['cohort_hash']}`",
        f"{learned} of the training patients",
        f"{load_gates('phantom64').copies.count} cubes of all the training patients",
        f"{near['limit']:.3f} at {100 * near['alpha']:.0f} %, from 2,154 cubes of {near['patients']:,} patients",
        ", ".join(f"{plausible['limits'][k]:.3f}" for k in ("spectra", "physics", "density"))
        + f" at {100 * plausible['alpha']:.0f} % each, from {plausible['patients']:,} patients",
        f"at {', '.join(f'{n:,}' for n in sizes[:-1])} and {sizes[-1]:,} cubes",
        ", ".join(f"{k} {about['dice'][k]:.2f}" for k in ("artery", "vein", "disc")),
    ):
        assert said in card, said
    assert "2154 cubes" in near["note"]


def test_the_card_of_the_generator_names_every_cohort_that_it_learned_from():
    folder = ROOT / "synthgen" / "generator" / "packaged" / "phantom64"
    card, about = (folder / "README.md").read_text(), json.loads((folder / "config.json").read_text())
    start = model_card(about).split("## Measured quality")[0]
    assert card.startswith(start)
    seen = [about["provenance"], *about["provenance"]["also"]]
    for one in seen:
        assert f"- Cohort `{one['cohort_hash']}`, {len(one['patients']):,} patients" in start
    gates = json.loads((PACKAGED / "phantom64" / "gates.json").read_text())["provenance"]
    (shared,) = [one for one in seen if one["cohort_hash"] == gates["cohort_hash"]]
    known = f"know {len(shared['patients'])} of its {sum(len(one['patients']) for one in seen):,} patients"
    assert known in (PACKAGED / "phantom64" / "README.md").read_text()


def test_the_card_of_the_segmenter():
    about = json.loads((PACKAGED / "segmenter" / "segmenter.json").read_text())
    card = re.sub(r"\s+", " ", (PACKAGED / "segmenter" / "README.md").read_text())
    made = about["made"]
    dice = made["held_out_phantoms"]
    rows = {"artery": "artery", "vein": "vein", "vessels together": "vessel", "disc": "disc"}
    rows["artery or vein right, of the vessels found"] = "artery_vein"
    for row, name in rows.items():
        assert f"| {row} | {dice[f'{name}_64']:.2f} | {dice[f'{name}_224']:.2f} |" in card, row
    assert about["network"]["encoder"] in card and f"{made['steps']:,} steps, {made['minutes']:.0f} minutes" in card
    semi = json.loads((ROOT / "benchmarks" / "results" / "segmenter.json").read_text())
    semi = (semi[-1] if isinstance(semi, list) else semi)["cohort"]
    right = 100 * semi["artery_vein_accuracy"]
    assert (
        f"vessels {semi['vessel_dice']:.2f}, artery or vein right on {right:.0f} %, disc {semi['disc_dice']:.2f}"
        in card
    )
