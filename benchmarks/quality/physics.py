"""The phantom's physics beside published values, and its speed: `python -m benchmarks.quality.physics`."""

from __future__ import annotations

import time

import numpy as np
from scipy import stats

from benchmarks.common import in_turn, record
from synthgen.cubes.phantom import evidence
from synthgen.cubes.phantom.simulate import WAVELENGTHS, simulate_cube

SIZES = {64: 40, 224: 6, 672: 1}  # cubes per timing


def physics() -> None:
    """Delori & Pflibsen's Table I, the between-person variation, blood's signs, the optical density ratio."""
    found: dict = {}
    for site in evidence.SITES:
        reflectance, variation = evidence.against_delori(site), evidence.variation(site)
        rows = zip(*(reflectance[k] for k in ("nm", "ours", "published", "std")), strict=True)
        found[site] = {
            f"{nm:g} nm": f"{ours:.2f} % beside {mean:.2f} +- {sd:.2f} %; variation {cv:.0f} beside {published:.0f} %"
            for (nm, ours, mean, sd), cv, published in zip(rows, variation["ours"], variation["published"], strict=True)
        }
        found[f"{site}, largest departure in published standard deviations"] = round(
            float(np.abs(reflectance["z"]).max()), 2
        )
    ratio = np.concatenate([v["published"] / v["ours"] for v in map(evidence.variation, evidence.SITES)])
    low, high = np.sqrt(stats.chi2.ppf([0.025, 0.975], evidence.DELORI_SUBJECTS - 1) / (evidence.DELORI_SUBJECTS - 1))
    found["variation, share of 60 within the interval of ten subjects"] = round(
        float(((ratio > low) & (ratio < high)).mean()), 3
    )
    signs = evidence.vein_over_artery(np.array(WAVELENGTHS), 10.0)
    found["venous over arterial absorption, bands of 10 nm"] = {
        f"{nm:g} nm": round(float(r), 3) for nm, r in zip(WAVELENGTHS, signs, strict=True)
    }
    for width in (0.0, 10.0):
        found[f"slope of the density ratio 600/570 per percent saturation, bands of {width:g} nm"] = (
            f"{evidence.odr_slope(0.1, width):.5f} beside {evidence.ODR_SLOPE} +- {evidence.ODR_SLOPE_ERROR}"
        )
    record("phantom_physics", found)


def speed() -> None:
    """Simulated cubes per second of one core (processor time), and how the time grows with the number of pixels."""
    jobs = {
        str(size): (lambda s=size, n=count: [simulate_cube(p, "OD", 0, s, seed=next(_SEEDS)) for p in range(n)])
        for size, count in SIZES.items()
    }
    seconds = in_turn(jobs, clock=time.process_time)
    each = {size: seconds[str(size)] / count for size, count in SIZES.items()}
    record(
        "phantom_speed",
        {
            "cubes_per_second_and_core": {str(size): round(1 / s, 2) for size, s in each.items()},
            "seconds_per_megapixel_of_16_bands": {str(size): round(s / size**2 * 1e6, 2) for size, s in each.items()},
        },
    )


_SEEDS = iter(range(10**6))  # never the same eye twice: the anatomy of the last eyes is kept

if __name__ == "__main__":
    physics()
    speed()
