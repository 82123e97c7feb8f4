"""What docs/sweep.md says came out stands in the records, and docs/pareto64 is what `synthgen pareto` makes of them."""

import re
from itertools import combinations
from pathlib import Path

import pytest

from synthgen.experiments.sweep.pareto import as_csv, pareto, table
from synthgen.experiments.sweep.records import read_records

ROOT = Path(__file__).parents[2]
RECORDS, MADE = ROOT / "benchmarks" / "results" / "sweep64", ROOT / "docs" / "pareto64"

pytestmark = pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="not a source tree")


@pytest.fixture(scope="module")
def rows():
    """One row per cell, nearest to real cubes first."""
    return sorted(table(read_records(RECORDS)), key=lambda r: r["frechet"])


def told(row, figure, digits):
    return f"{row[figure]:{digits}} [{row[f'{figure}_low']:{digits}}, {row[f'{figure}_high']:{digits}}]"


def apart(a, b, figure):
    """-1 or 1 where a's interval lies below or above b's; 0 where they overlap."""
    if a[f"{figure}_high"] < b[f"{figure}_low"]:
        return -1
    return int(a[f"{figure}_low"] > b[f"{figure}_high"])


def ends(values, digits=".0f"):
    return f"{min(values):{digits}} to {max(values):{digits}}"


def overlapping(rows, figure):
    pairs = list(combinations(rows, 2))
    return f"{100 * sum(not apart(a, b, figure) for a, b in pairs) / len(pairs):.0f} %"


def sentences(rows):
    """What the page must say, from the records."""
    by_name = {r["name"]: r for r in rows}
    best = rows[0]
    tied = [r for r in rows[1:] if not apart(best, r, "frechet")]
    of = lambda f=None, d=None: [
        r for r in rows if (f is None or r["compression"] in f) and (d is None or r["latent_channels"] in d)
    ]
    through = lambda f, d: [r["interpolation_frechet"] for r in of(f, d)]
    veins = lambda f, d: [r["kl_vein"] for r in of(f, d)]
    four, eight = ({r["name"].partition("_")[2]: r["flow_steps"] for r in of([f])} for f in (4, 8))
    wider = {
        (a, b): [
            (f"f{f}_d{d}", apart(by_name[f"f{f}_d{d}_c{b}"], by_name[f"f{f}_d{d}_c{a}"], "frechet"))
            for f in (16, 8, 4)
            for d in (8, 32, 256)
        ]
        for a, b in ((16, 32), (32, 64))
    }
    (odd, sign), *more = [found for found in wider[32, 64] if found[1]]
    assert sign == 1 and not more and not any(s == 1 for _, s in wider[16, 32])
    original, disc = by_name["f8_d8_c64"], sorted(rows, key=lambda r: r["kl_disc"])
    assert all(apart(disc[0], r, "kl_disc") == -1 for r in disc[1:])
    others = [r["kl_vein"] for r in rows if r["latent_channels"] != 8]
    return [
        f"27 of {len(rows)} cells",
        f"{ends([r['autoencoder_steps'] for r in rows])} steps of an autoencoder",
        f"{min(r['flow_steps'] for r in rows):.0f} to {max(r['flow_steps'] for r in rows):,.0f} of a flow",
        f"Nearest to real cubes: `{best['name']}`",
        f"{told(best, 'frechet', '.0f')} at {best['cubes_per_s']:.0f} cubes/s",
        "Not told apart from it: "
        + ", ".join(f"`{r['name']}` at {r['cubes_per_s']:.0f}{' cubes/s' * (k == 0)}" for k, r in enumerate(tied))
        + ".",
        f"{told(original, 'frechet', '.0f')}, {rows.index(original) + 1}st of 27",
        f"what they let through is at {through([8], [8])[0]:.0f} and {through([4], [8])[0]:.0f}, with 32 and 256 "
        f"channels at {ends(through([8, 4], [32, 256]))}",
        f"it is at {ends(through([16], None))} whatever the channels (8: {through([16], [8])[0]:.0f})",
        f"{ends(veins([16, 8], [8]))} nats at 16 and 8, {ends(veins([4], [8]))} at 4, all other cells {ends(others)}",
        f"({through([4], [256])[0]:.0f} with 256 channels, {through([4], [32])[0]:.0f} with 32)",
        f"{ends([four[k] / eight[k] for k in four], '.2f')} times the steps of compression 8: "
        f"{min(r['frechet'] for r in of([4])):.0f} at best",
        f"nearer than 16 in {sum(s == -1 for _, s in wider[16, 32])} of 9 pairs and farther in none",
        f"apart from 32 in 1 of 9, `{odd}`, and are farther there",
        f"|MS-SSIM difference|: {ends([r['ms_ssim_gap'] for r in rows], '.3f')}; the intervals of "
        f"{overlapping(rows, 'ms_ssim_gap')} of all pairs",
        f"({ends([r['kl_artery'] for r in rows])} nats), with wide intervals: {overlapping(rows, 'kl_artery')} overlap",
        f"`{disc[0]['name']}` at {told(disc[0], 'kl_disc', '.1f')}",
        f"(from {told(disc[1], 'kl_disc', '.1f')} on)",
        f"{rows.index(disc[0]) + 1}th of 27 ({disc[0]['frechet']:.0f})",
    ]


def test_the_page_says_what_the_records_hold(rows):
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "sweep.md").read_text().split("## What came out")[1])
    missing = [sentence for sentence in sentences(rows) if sentence not in page]
    assert not missing, missing


def sentences_on_variants(found):
    """What the page must say of the departures, from their records by name."""
    one, bare = found["common"], found["grid0"]
    each = lambda names, figure, digits=".0f": ", ".join(f"{found[n][figure]:{digits}}" for n in names)
    by_steps = [found[n]["frechet"] for n in ("steps2", "steps4", "common", "steps16", "steps32", "steps64")]
    return [
        f"{ends([r['autoencoder_steps'] for r in found.values()], ',.0f')} and "
        f"{ends([r['flow_steps'] for r in found.values()], ',.0f')}",
        f"without it {told(bare, 'tilt_retained', '.3g')} of a blue tilt",
        f"{told(bare, 'tilt_left_half', '.3g')} in its left half, with a grid of 4 "
        f"{told(one, 'tilt_retained', '.3g')} and {told(one, 'tilt_left_half', '.3g')}",
        f"at {bare['interpolation_frechet']:.1f} without and at {one['interpolation_frechet']:.1f} with it",
        f"{told(bare, 'frechet', '.3g')} against {told(one, 'frechet', '.3g')}",
        f"after {bare['flow_steps'] / one['flow_steps']:.1f} times the steps of its flow",
        f"samples are at {told(found['vqvae'], 'frechet', '.3g')}, after "
        f"{found['vqvae']['autoencoder_steps'] / one['autoencoder_steps']:.1f} times the steps of its autoencoder",
        f"({found['vqvae']['interpolation_frechet']:.1f} against {one['interpolation_frechet']:.1f})",
        f"({each(('common', 'kmeans_once', 'kmeans_none'), 'frechet')})",
        f"({each(('common', 'kmeans_once', 'kmeans_none'), 'interpolation_frechet', '.1f')})",
        f"({each(('codes256', 'common', 'codes4096'), 'frechet')}); through the autoencoder "
        f"{each(('codes256', 'common', 'codes4096'), 'interpolation_frechet', '.1f')}",
        f"not told apart ({ends(by_steps)})",
    ]


def test_the_page_says_what_the_departures_came_to():
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "sweep.md").read_text().split("## One departure")[1])
    found = {r["name"]: r for r in table(read_records(RECORDS.parent / "ablations64"))}
    missing = [sentence for sentence in sentences_on_variants(found) if sentence not in page]
    assert not missing, missing
    assert apart(found["grid0"], found["common"], "frechet") == apart(found["vqvae"], found["common"], "frechet") == -1
    alike = ("kmeans_once", "kmeans_none", "codes256", "codes4096", "steps2", "steps64")
    assert not any(apart(found[name], found["common"], "frechet") for name in alike)


@pytest.mark.parametrize(("records", "made"), [("sweep64", "pareto64"), ("ablations64", "ablations64")])
def test_table_and_findings_of_the_documentation_are_made_of_the_records(tmp_path, records, made):
    folder, kept = RECORDS.parent / records, MADE.parent / made
    pareto(folder, tmp_path)
    for name in ("findings.md", "table.csv"):
        assert (kept / name).read_text() == (tmp_path / name).read_text(), f"{name}: run `synthgen pareto` again"
    assert (kept / "table.csv").read_text() == as_csv(table(read_records(folder)))
    assert {p.name for p in kept.iterdir()} == {p.name for p in tmp_path.iterdir()}
