"""How far the phantom is from other eyes: Fréchet distance of simple features.

    python -m benchmarks.quality.likeness FILE

FILE is a cohort of 16-band eyes at 224x224 with `structures` or masks of artery, vein, disc and field of view. The
features are ones that a reader can check: region spectra, gradient energy per band, vessel calibre and density. Each is
divided by its standard deviation within the two sets and each family reduced to its first principal components; the
distance is given per component, so 1 means about one standard deviation in each. Beside it stands the same distance
between two halves of the other eyes, which is what sampling alone gives. Semi-real eyes whose spectra were normalised
to one published curve vary in texture and geometry only; their spectra differ from the phantom's for that reason too
(the phantom's people are 45 to 90 years old).
"""

from __future__ import annotations

import argparse

import h5py
import numpy as np
from scipy import linalg, ndimage

from benchmarks.common import record
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.errors import InputError

FAMILIES = ("background spectrum", "vessel contrast", "disc contrast", "gradient energy", "vessels")
SIZE, COMPONENTS = 224, 3


def features(cube: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Features of one eye by family; cube [C, H, W] reflectance, masks bool [H, W]."""
    fov = ndimage.binary_erosion(masks["fov"], iterations=8)
    vessel = masks["artery"] | masks["vein"]
    plain = fov & ~ndimage.binary_dilation(vessel | masks["disc"], iterations=2)
    logs = np.log(np.maximum(cube, 1e-4))
    background = np.median(logs[:, plain], 1)
    contrast = {n: np.median(logs[:, masks[n] & fov], 1) - background for n in ("artery", "vein", "disc")}
    smooth = np.stack([ndimage.gaussian_filter(band, 1.0) for band in logs])
    slope = np.stack([np.hypot(ndimage.sobel(b, 0), ndimage.sobel(b, 1)) / 8 for b in smooth])
    return {
        "background spectrum": background,
        "vessel contrast": np.concatenate([contrast["artery"], contrast["vein"]]),
        "disc contrast": contrast["disc"],
        "gradient energy": np.log(np.median(slope[:, plain], 1)),
        "vessels": np.array([*_calibre(masks["artery"] & fov, fov), *_calibre(masks["vein"] & fov, fov)]),
    }


def _calibre(mask: np.ndarray, fov: np.ndarray) -> tuple[float, float]:
    """Log of the mean width in pixels (twice the distance to the edge, on the ridge) and of the covered share."""
    depth = ndimage.distance_transform_edt(mask)
    ridge = mask & (depth >= ndimage.maximum_filter(depth, 3) - 1e-6)
    return float(np.log(2 * depth[ridge].mean())), float(np.log(mask.sum() / fov.sum()))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance between two sets [n, d] of features."""
    mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
    s, t = np.cov(a.T), np.cov(b.T)
    return float(mean + np.trace(s + t - 2 * linalg.sqrtm(s @ t).real))


def compare(ours: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> dict[str, float]:
    """Distance per family, each reduced to at most three principal components of both sets, per component."""
    rng, out = np.random.default_rng(0), {}
    for family in FAMILIES:
        real, made = others[family], ours[family]
        centre, scale = real.mean(0), np.sqrt((real.var(0) + made.var(0)) / 2) + 1e-9
        both = np.concatenate([(real - centre) / scale, (made - centre) / scale])
        axes = np.linalg.svd(both - both.mean(0), full_matrices=False)[2][:COMPONENTS]
        project = lambda x: (x - centre) / scale @ axes.T  # noqa: B023
        z, y = project(real), project(made)
        unit = np.sqrt((z.var(0) + y.var(0)) / 2)
        halves = []
        for _ in range(50):
            order = rng.permutation(len(z))
            halves.append(frechet(z[order[::2]] / unit, z[order[1::2]] / unit) / len(unit))
        out[family] = frechet(y / unit, z / unit) / len(unit)
        out[f"{family}, halves of the other eyes"] = float(np.median(halves))
    return out


def stack(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {family: np.stack([row[family] for row in rows]) for family in FAMILIES}


def other_eyes(path: str) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        if "structures" not in file:
            return eyes_of(path)
        scale = file["cubes"].attrs.get("scale", file.attrs.get("scale", 65535))
        codes = file["structures"][:]
        rows = []
        for i, cube in enumerate(file["cubes"]):
            names = {"artery": 1, "vein": 2, "disc": 3}
            masks = {n: codes[i] == c for n, c in names.items()} | {"fov": codes[i] != 255}
            rows.append(features(cube.astype(np.float64) / (scale if scale > 1 else 1 / scale), masks))
    return stack(rows)


def phantom_eyes(count: int, size: int = SIZE) -> dict[str, np.ndarray]:
    made = (simulate_cube(p, ("OD", "OS")[p % 2], 0, size, seed=9) for p in range(count))
    return stack([features(m.cube.astype(np.float64), m.masks) for m in made])


def eyes_of(path: str) -> dict[str, np.ndarray]:
    """Features of a cohort file with masks: an older phantom, say."""
    cohort = Cohort.open(path)
    masks = cohort.masks()
    if missing := {"artery", "vein", "disc", "fov"} - set(masks):
        raise InputError("has no masks of its structures", path=path, expected=", ".join(sorted(missing)))
    rows = range(len(cohort))
    return stack([features(cohort.cubes([i])[0].astype(np.float64), {k: m[i] for k, m in masks.items()}) for i in rows])


def can_compare(path: str) -> bool:
    """Whether a file has what the features need: 16 bands at 224x224 and masks."""
    cohort = Cohort.open(path)
    return (cohort.bands, cohort.height) == (16, SIZE) and {"artery", "vein", "disc"} <= set(cohort.mask_names)


def measure(path: str, count: int = 60, phantom: str | None = None, note: str = "this phantom") -> None:
    """Record the distance between eyes in `path` and the phantom (or another cohort that stands in for it)."""
    ours = phantom_eyes(count) if phantom is None else eyes_of(phantom)
    others = other_eyes(path)
    about = {"what": note, "phantom_eyes": len(ours["vessels"]), "other_eyes": len(others["vessels"])}
    record("likeness", about | {k: round(v, 2) for k, v in compare(ours, others).items()})


def on_data(data: str) -> None:
    """`measure` where the file has what it needs."""
    if can_compare(data):
        measure(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--count", type=int, default=60, help="phantom eyes")
    parser.add_argument("--phantom", help="a cohort of 224x224 eyes with masks to compare instead of the phantom's")
    parser.add_argument("--note", default="this phantom")
    given = parser.parse_args()
    measure(given.file, given.count, given.phantom, given.note)


if __name__ == "__main__":
    main()
