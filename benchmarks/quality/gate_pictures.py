"""Write docs/gates_cubes.png and docs/gates_sets.png, what each gate sees.

    python -m benchmarks.quality.gate_pictures

Simulated eyes of patients that the packaged gates have not seen, the same eyes with a fault planted, and samples of the
packaged generator: the score of each per-cube gate with its limit, and each set statistic on its null distribution.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from benchmarks import ROOT
from benchmarks.common import with_detector
from benchmarks.quality.power.faults import CHANGES, FORMS, Eyes
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.reflectance import log_reflectance, reflectance
from synthgen.generator.generator import Generator
from synthgen.integration.judging.statistics import bands_of
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.per_cube.acceptance import AcceptanceCounts
from synthgen.quality.per_cube.validity import facts_of
from synthgen.report.verdict_style import by_owner, label_of
from synthgen.runs.processes.device import set_threads

DOCS = ROOT / "docs"
SEED, EYES = 6_120, 400
REAL, MADE, FAULT, LIMIT = "0.72", "#1f6fb5", "#d1670f", "#c0392b"
GREY = "0.35"  # of words on fresh eyes
OF_GROUPS = ((0.19, "fresh"), (0.39, "generator"), (0.74, "fault"))  # where in a panel's width each word stands
FRESH, SAMPLES = "fresh eyes", "packaged generator"
COPIES = "flipped, shifted, darker and noisy"
INVERTED = "contrasts at 600-750 nm inverted"
# Gate, the fault shown beside it, and what its axis says.
SHOWN = (
    ("authenticity", COPIES, "authenticity: distance to the nearest training cube"),
    ("spectra", "two neighbouring bands swapped", "spectra: distance of the worst structure"),
    ("physics", INVERTED, "physics: worst contrast of the wrong sign"),
    ("density", "noise instead of texture", "density: distance to the fifth nearest real cube"),
)
SET_FAULT = "blur of 1 pixel"
FAR = 40.0  # times the way from the null median to the limit: what lies further right is drawn at the edge


def write() -> None:
    set_threads()
    gates, generator = load_gates("phantom64"), Generator.load("phantom64")
    samples = generator.decode(generator.sample(range(EYES), SEED, 8, "ab2"))
    with tempfile.TemporaryDirectory() as folder:
        cohort = simulate_cohort(Path(folder) / "eyes.h5", patients=EYES, size=gates.size, seed=SEED)
        first = np.unique(cohort.patient_id, return_index=True)[1]
        eyes = Eyes.read(cohort, SEED, first + np.arange(EYES) % 2)  # of each patient one eye, right and left in turn
        faulty = {name: CHANGES[name](eyes) for name in {*(s[1] for s in SHOWN), SET_FAULT} - {COPIES, INVERTED}}
        faulty[INVERTED] = _inverted(eyes)
    groups = {FRESH: eyes.cubes, SAMPLES: samples, **faulty}
    _cubes(gates, groups, DOCS / "gates_cubes.png")
    _sets(gates, {name: groups[name] for name in (FRESH, SAMPLES, SET_FAULT)}, DOCS / "gates_sets.png")


def _inverted(eyes: Eyes) -> Tensor:
    """Log-reflectance at 600-750 nm mirrored about its mean over the field of view: bright is dark."""
    logs = log_reflectance(eyes.cubes).clone()
    red = [k for k, nm in enumerate(eyes.cohort.wavelengths) if 600 <= nm <= 750]
    for cube, lit in zip(logs, eyes.masks["fov"], strict=True):
        for band in red:
            cube[band][lit] = 2 * cube[band][lit].mean() - cube[band][lit]
    return reflectance(logs)


def _cubes(gates: Gates, groups: Mapping[str, Tensor], path: Path) -> None:
    scores = {name: gates(cubes).scores for name, cubes in groups.items()}
    copied = with_detector(gates, gates.memorization.with_bank(groups[FRESH]))
    scores[COPIES] = copied(FORMS[COPIES][0](groups[FRESH])).scores
    figure, axes = plt.subplots(2, 3, figsize=(12.6, 7.2))
    _envelope(gates, groups, axes.flat[0])
    assert gates.limits.plausible.limits is not None and gates.limits.authenticity.limit is not None
    limits = {**gates.limits.plausible.limits, "authenticity": gates.limits.authenticity.limit}
    for axis, (gate, fault, label) in zip(axes.flat[1:], SHOWN, strict=False):
        shown = [scores[name][gate].cpu().numpy() for name in (FRESH, SAMPLES, fault)]
        _histogram(axis, shown, limits[gate], gate == "authenticity")
        axis.set_title(
            f"copies: {fault}" if gate == "authenticity" else fault, loc="left", color=FAULT, fontsize=10, pad=20
        )
        axis.set_xlabel(label)
    _key(axes.flat[-1])
    for axis in axes.flat[:-1]:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout(h_pad=1.6)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _histogram(axis: Axes, groups: Sequence[np.ndarray], limit: float, below: bool) -> None:
    """Fractions of cubes; the part beyond the limit is rejected, how much stands above. Values far to the right are
    counted in the last bin."""
    most = (1.3 if below else 2.2) * max(limit, float(np.nanquantile(groups[0], 0.99)))
    low = min(float(np.nanmin(v)) for v in groups)
    bins = np.linspace(min(low, 0.9 * limit), most, 41)
    axis.text(0, 1.03, "rejected", transform=axis.transAxes, fontsize=9)
    for found, (place, word), colour in zip(groups, OF_GROUPS, (GREY, MADE, FAULT), strict=True):
        values = found[np.isfinite(found)]
        out = np.mean(values < limit if below else values > limit)
        axis.hist(
            values.clip(None, most), bins, weights=np.full(len(values), 100 / len(values)),
            color=REAL if colour == GREY else colour, histtype="stepfilled" if colour == GREY else "step", lw=1.7,
        )  # fmt: skip
        axis.text(place, 1.03, f"{word} {100 * out:.0f} %", transform=axis.transAxes, fontsize=9, color=colour)
    axis.axvline(limit, color=LIMIT, lw=1.6)
    axis.set_ylabel("fraction of cubes (%)")


def _key(axis: Axes) -> None:
    """What the colours mean, in the place of a sixth panel."""
    axis.axis("off")
    keys = [
        Patch(color=REAL, label="fresh eyes, which the gates have not seen"),
        Line2D([], [], color=MADE, lw=1.7, label="samples of the packaged generator"),
        Line2D([], [], color=FAULT, lw=1.7, label="a fault, named above each panel"),
        Line2D([], [], color=LIMIT, lw=1.6, label="limit: rejected are cubes left of it\n"
               "(authenticity), right of it (spectra, physics,\ndensity) or outside (validity)"),
    ]  # fmt: skip
    axis.legend(handles=keys, loc="center", frameon=False, fontsize=9, labelspacing=1.1)


def _envelope(gates: Gates, groups: Mapping[str, Tensor], axis: Axes) -> None:
    """Validity: mean spectra between the limits; a cube whose band 9 is dead leaves them."""
    nm, at = np.array(gates.wavelengths), gates.limits.validity
    dead = groups[FRESH][:1].clone()
    dead[:, 8] = 0.002
    for cubes, colour in ((groups[FRESH][:60], REAL), (groups[SAMPLES][:60], MADE)):
        for line in 100 * np.exp(facts_of(cubes)[0].spectrum.numpy()):
            axis.plot(nm, line, color=colour, lw=0.5, alpha=0.7)
    axis.plot(nm, 100 * np.exp(facts_of(dead)[0].spectrum.numpy()[0]), color=FAULT, lw=1.6)
    for edge in (at.spectrum_low, at.spectrum_high):
        axis.plot(nm, 100 * np.exp(np.array(edge)), color=LIMIT, lw=1.6)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_title("one band dead", loc="left", color=FAULT, fontsize=10, pad=20)
    axis.set_xlabel("validity: mean spectrum over wavelength (nm)")
    axis.set_ylabel("reflectance (%)")


def _sets(gates: Gates, groups: Mapping[str, Tensor], path: Path) -> None:
    """Each statistic of three sets on its null distribution: 0 its median between real sets, 1 the limit."""
    found = {}
    for name, cubes in groups.items():
        admission = gates(cubes)
        rows = gates.rows(admission, everything=True)  # the set as it is, whatever the per-cube gates say
        verdict = gates.certify(rows, AcceptanceCounts.of(admission), gates.similarity(cubes))
        found[name] = {band["name"]: band for band in bands_of(gates, verdict)}
    names = [band["name"] for band in by_owner(list(found[FRESH].values()))]
    figure, axis = plt.subplots(figsize=(10.5, 0.3 * len(names) + 1.2))
    for y, name in enumerate(names):
        null = np.asarray(found[FRESH][name]["null"], float)
        middle = float(np.median(null))
        unit = max(float(found[FRESH][name]["limit"]) - middle, 1e-9)
        for share, tone in ((0.0, "0.90"), (0.05, "0.80"), (0.25, "0.66")):
            last = len(null) - 1
            ends = [(null[round(s * last)] - middle) / unit for s in (share, 1 - share)]
            axis.fill_betweenx([y - 0.32, y + 0.32], *ends, color=tone, lw=0)
        for (group, bands), colour, marker in zip(found.items(), ("0.1", MADE, FAULT), "osD", strict=True):
            if name in bands:
                place = float(np.clip((bands[name]["value"] - middle) / unit, -3, FAR))
                axis.plot(place, y, marker, color=colour, ms=6, mec="white", mew=0.7, label=group if y == 0 else None)
    axis.axvline(1, color=LIMIT, lw=1.5)
    axis.set_xscale("symlog", linthresh=1.5, linscale=1.6)
    axis.set_xlim(-1.5, 1.15 * FAR)
    axis.set_xticks([-1, 0, 1, 2, 5, 10, 40], ["-1", "0", "limit", "2", "5", "10", "≥ 40"])
    axis.set_yticks(range(len(names)), [label_of(n) for n in names], fontsize=9)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="x", color="0.93")
    axis.set_axisbelow(True)
    axis.set_xlabel("0: median between real sets, 1: limit")
    axis.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    write()
