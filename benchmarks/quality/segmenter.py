"""The structure segmenter: what it finds on eyes that it has never seen, and what it costs beside sampling.

    python -m benchmarks.quality.segmenter /path/to/eyes_224.h5

The cohort needs `structures`. Phantoms are simulated freshly. Artery-vein accuracy is also taken on phantoms whose
arterial and venous spectra were exchanged: a segmenter that went by the spectrum alone would be wrong on all of them.

The semi-real trial eyes mark only the bright side of the disc. Ellipses placed by eye (a layman's) round the whole
discs, without the vessels, have a Dice of 0.59 with those masks over the 20 eyes; another model's discs of two of the
same photographs have 0.60 and 0.55, and 0.89 and 0.93 with the ellipses. So `disc_dice` says little there of discs
that are found whole.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace

import numpy as np
import torch

from benchmarks.common import in_turn, record
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.demographics import Patient
from synthgen.cubes.phantom.simulate import WAVELENGTHS, simulate_cube
from synthgen.errors import SynthgenError
from synthgen.generator.generator import Generator
from synthgen.quality.segmenter.segmenter import CONFIDENT, STRUCTURES, Segmenter, load_segmenter

SEED = 4_040_404  # of phantoms that nothing was trained on
PACKAGED_GENERATOR = "phantom64"


def measure(path: str | os.PathLike | None, count_64: int = 60, count_224: int = 12) -> dict:
    """Figures on the cohort at `path` (None: phantoms only) and on phantoms; recorded in results/segmenter.json."""
    torch.set_num_threads(1)
    segmenter = load_segmenter()
    figures: dict = {"hash": segmenter.hash, "made": segmenter.made}
    if path is not None:
        cohort = Cohort.open(path)
        index = np.arange(len(cohort))
        truth = cohort.masks(index)
        figures["cohort"] = {"cubes": len(cohort), "size": cohort.height} | scores(
            segmenter, cohort.cubes(index), truth, cohort.wavelengths
        )
    for size, count in ((64, count_64), (224, count_224)):
        for name, exchanged in (("phantom", False), ("phantom_exchanged", True)):
            cubes, masks = phantoms(count, size, exchanged)
            figures[f"{name}_{size}"] = {"cubes": count} | scores(segmenter, cubes, masks, WAVELENGTHS)
    figures["cpu_ms_per_cube"] = speed(segmenter)
    record("segmenter", figures)
    return figures


def scores(segmenter: Segmenter, cubes: np.ndarray, masks: dict[str, np.ndarray], wavelengths) -> dict[str, float]:
    """Dice of vessels as one, of disc, artery and vein, and artery-vein accuracy on found vessels.

    A vessel is found where artery and vein together have a probability above a half; "sure" counts only what is surely
    one of them, as the gates do. The disc is compared where no vessel crosses it.
    """
    p = np.concatenate([segmenter.probabilities(torch.from_numpy(c[None]), wavelengths).numpy() for c in cubes])
    crossing = masks.get("crossing", np.zeros_like(masks["artery"]))
    vessel = masks["artery"] | masks["vein"] | crossing
    inside = masks.get("fov", np.ones_like(vessel))
    one = (masks["artery"] ^ masks["vein"]) & ~crossing
    found = {"vessel": (p[:, 0] + p[:, 1] > 0.5) & inside, "vessel_sure": (p[:, :2].max(1) > CONFIDENT) & inside}
    figures = {f"{name}_dice": _dice(mask, vessel) for name, mask in found.items()}
    arterial = p[:, 0] > p[:, 1]
    for name, mask in found.items():
        figures[name.replace("vessel", "artery_vein") + "_accuracy"] = _share(arterial == masks["artery"], mask & one)
    for k, name in enumerate(STRUCTURES):
        hidden = vessel if name == "disc" else crossing
        for word, limit in (("", 0.5), ("_sure", CONFIDENT)):
            figures[f"{name}{word}_dice"] = _dice((p[:, k] > limit) & inside & ~hidden, masks[name] & ~hidden)
    return {name: round(value, 4) for name, value in figures.items()}


def phantoms(count: int, size: int, exchanged: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Fresh phantoms and their masks; with `exchanged`, arteries carry venous blood and veins arterial."""

    def swapped(person: Patient) -> Patient:
        return replace(person, artery_saturation=person.vein_saturation, vein_saturation=person.artery_saturation)

    alter = swapped if exchanged else None
    made = [simulate_cube(i, ("OD", "OS")[i % 2], size=size, seed=SEED, alter=alter) for i in range(count)]
    names = ("artery", "vein", "disc", "fov")
    return np.stack([m.cube for m in made]), {name: np.stack([m.masks[name] for m in made]) for name in names}


def speed(segmenter: Segmenter) -> dict[str, float]:
    """Milliseconds of processor time per cube on one thread: the segmenter at both sizes, and sampling, in turn."""
    small, large = torch.rand(64, 16, 64, 64) * 0.1 + 0.02, torch.rand(4, 16, 224, 224) * 0.1 + 0.02
    nm = segmenter.wavelengths
    jobs = {
        "segmenter_64": lambda: segmenter.probabilities(small, nm),
        "segmenter_224": lambda: segmenter.probabilities(large, nm),
    }
    counts = {"segmenter_64": len(small), "segmenter_224": len(large)}
    sampled = _sampling()
    if sampled is not None:
        jobs["sampling_64"], counts["sampling_64"] = sampled
    return {
        name: round(1000 * s / counts[name], 3) for name, s in in_turn(jobs, rounds=5, clock=time.process_time).items()
    }


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def _share(right: np.ndarray, where: np.ndarray) -> float:
    return float(right[where].mean()) if where.any() else float("nan")


def _sampling():
    """Sampling and decoding with the packaged generator, and the number of cubes; None where none is packaged."""
    try:
        generator = Generator.load(PACKAGED_GENERATOR, "cpu")
    except SynthgenError:
        return None
    ids = list(range(64))
    return lambda: generator.decode(generator.sample(ids, 0, 8, "ab2")), len(ids)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", nargs="?", help="a cohort file with `structures`, never trained on")
    measure(parser.parse_args().cohort)
