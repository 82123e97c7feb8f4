"""The faults that are planted on simulated eyes to measure what the gates catch.

A fault of a set either changes every cube (`CHANGES`) or leaves some out (`LOSSES`); a copy is a training cube in some
form (`FORMS`). Everything is keyed, so a fault is the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.phantom.demographics import Patient, draw_patient
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.cubes.phantom.spectra import Signature
from synthgen.cubes.reflectance import log_reflectance, reflectance
from synthgen.quality.per_cube.memorization import shift
from synthgen.runs.keys import numpy_stream

SATURATION = 0.10  # points that venous blood is off
SMOOTH = 3.0  # pixels: what is finer counts as texture


@dataclass(frozen=True)
class Eyes:
    """Some cubes float32 [N, C, H, W] of a simulated cohort, where they stand in it, and their masks."""

    cohort: Cohort
    seed: int
    index: np.ndarray
    cubes: Tensor
    masks: dict[str, np.ndarray]

    @staticmethod
    def read(cohort: Cohort, seed: int, index: np.ndarray) -> Eyes:
        return Eyes(cohort, seed, index, torch.from_numpy(cohort.cubes(index)), cohort.masks(index))


Change = Callable[[Eyes], Tensor]


def number(name: str) -> int:
    """Which patient of a simulated cohort has this name ("s31p0007": 7)."""
    return int(str(name).rpartition("p")[2])


def nothing(eyes: Eyes) -> Tensor:
    return eyes.cubes


def blurred(eyes: Eyes) -> Tensor:
    """Gaussian blur of 1 pixel inside the field of view, whose edge stays as it is."""
    lit = eyes.masks["fov"][:, None].astype(np.float32)
    inside = gaussian_filter(eyes.cubes.numpy() * lit, (0, 0, 1, 1))
    share = gaussian_filter(lit, (0, 0, 1, 1))
    return torch.from_numpy(np.where(lit > 0, inside / np.maximum(share, 1e-6), eyes.cubes.numpy()))


def neighbours_swapped(eyes: Eyes) -> Tensor:
    """Bands 6 and 7 (600 and 630 nm) in each other's place."""
    order = list(range(eyes.cubes.shape[1]))
    order[5], order[6] = order[6], order[5]
    return eyes.cubes[:, order]


def reversed_bands(eyes: Eyes) -> Tensor:
    return eyes.cubes.flip(1)


def exchanged(eyes: Eyes) -> Tensor:
    """The mean spectra of arteries and veins of each eye, one in the place of the other."""
    logs = log_reflectance(eyes.cubes).clone()
    for cube, artery, vein in zip(logs, eyes.masks["artery"], eyes.masks["vein"], strict=True):
        only_artery, only_vein = torch.from_numpy(artery & ~vein), torch.from_numpy(vein & ~artery)
        if only_artery.any() and only_vein.any():
            difference = (cube[:, only_artery].mean(1) - cube[:, only_vein].mean(1))[:, None]
            cube[:, only_artery] -= difference
            cube[:, only_vein] += difference
    return reflectance(logs)


def desaturated(eyes: Eyes, points: float = SATURATION) -> Tensor:
    """The same eyes simulated again with venous blood `points` richer in oxygen."""

    def alter(person: Patient) -> Patient:
        return replace(person, vein_saturation=min(person.vein_saturation + points, 1.0))

    assert eyes.cohort.eye is not None
    people, sides, size = eyes.cohort.patient_id[eyes.index], eyes.cohort.eye[eyes.index], eyes.cubes.shape[-1]
    made = [
        simulate_cube(number(person), str(side), 0, size, eyes.seed, alter=alter).cube
        for person, side in zip(people, sides, strict=True)
    ]
    return torch.from_numpy(np.stack(made))


def tilted(eyes: Eyes, amplitude: float = 0.05) -> Tensor:
    """Log-reflectance up by amplitude (nm/450)^-4, to 585 nm."""
    law = torch.from_numpy(Signature(amplitude).law(np.array(eyes.cohort.wavelengths))).float()
    return (eyes.cubes * law.exp()[:, None, None]).clamp(0, 1)


def noise_for_texture(eyes: Eyes) -> Tensor:
    """What is finer than SMOOTH pixels replaced by white noise of the same standard deviation in each band."""
    return _other_texture(eyes, lambda fine, noise: noise)


def scrambled_texture(eyes: Eyes) -> Tensor:
    """The same, but the noise keeps the texture's power spectrum and how its bands go together: only phases differ."""

    def scramble(fine: np.ndarray, noise: np.ndarray) -> np.ndarray:
        wave = np.fft.fft2(noise[0])
        return np.fft.ifft2(np.fft.fft2(fine) * wave / np.abs(wave)).real

    return _other_texture(eyes, scramble)


def _other_texture(eyes: Eyes, other: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Tensor:
    """other(fine, noise), both [C, H, W]: what stands in for the texture; it is brought to its standard deviation."""
    out = eyes.cubes.clone()
    for cube, lit, index in zip(out, eyes.masks["fov"], eyes.index, strict=True):
        logs = log_reflectance(cube).numpy()
        level = logs[:, lit].mean(1)[:, None, None]
        flat = np.where(lit, logs, level)
        smooth = gaussian_filter(flat, (0, SMOOTH, SMOOTH))
        fine = flat - smooth
        made = other(fine, numpy_stream("fault texture", int(index)).standard_normal(fine.shape))
        made = made * (fine[:, lit].std(1) / made[:, lit].std(1))[:, None, None]
        cube[:, lit] = reflectance(torch.from_numpy((smooth + made)[:, lit])).float()
    return out


CHANGES: dict[str, Change] = {
    "none": nothing,
    "blur of 1 pixel": blurred,
    "two neighbouring bands swapped": neighbours_swapped,
    "band order reversed": reversed_bands,
    "artery and vein spectra exchanged": exchanged,
    "saturation off by 10 points": desaturated,
    "blue bands tilted by 5 %": tilted,
    "noise instead of texture": noise_for_texture,
    "noise of the texture's own spectrum": scrambled_texture,
}


def pattern_of(seed: int, patient: int, eye: str) -> int:
    """Which of four vessel patterns an eye has: left or right, arterial trunks outside or inside the venous ones."""
    shared = numpy_stream("phantom eyes", seed, patient)
    shared.normal(0.03, 0.03)  # the height of the disc, drawn before
    outside = shared.choice([-1.0, 1.0]) > 0
    return 2 * int(eye == "OS") + int(outside)


def kept_patterns(cohort: Cohort, seed: int) -> np.ndarray:
    """bool [N]: all but the right eyes with arteries outside the veins."""
    assert cohort.eye is not None
    found = [pattern_of(seed, number(p), str(e)) for p, e in zip(cohort.patient_id, cohort.eye, strict=True)]
    return np.array(found) != 1


def kept_pigmentation(cohort: Cohort, seed: int) -> np.ndarray:
    """bool [N]: the patients with less melanin than the median."""
    melanin = np.array([draw_patient(seed, number(p)).melanin for p in cohort.patient_id])
    return melanin < np.median(melanin)


LOSSES: dict[str, Callable[[Cohort, int], np.ndarray]] = {
    "one of four vessel patterns never drawn": kept_patterns,
    "half the range of pigmentation missing": kept_pigmentation,
}


def _noisy(x: Tensor, share: float) -> Tensor:
    return (x * (1 + share * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))).clamp(0, 1)


def _band_replaced(x: Tensor, donor: Tensor) -> Tensor:
    """One band, another in each cube, replaced by the one before it of the donor."""
    out, rows = x.clone(), torch.arange(len(x))
    bands = torch.randint(1, x.shape[1], (len(x),), generator=torch.Generator().manual_seed(2))
    out[rows, bands] = donor[rows, bands - 1]
    return out


FORMS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "exact, and stored in 16 bits": (lambda x: x, lambda x: (x * 65535).round() / 65535),
    "flipped": (lambda x: x.flip(3), lambda x: x.flip(2)),
    "shifted by 2 pixels": (lambda x: shift(x, 2, -2), lambda x: shift(x, 0, 2)),
    "shifted by 1 pixel": (lambda x: shift(x, 1, 0), lambda x: shift(x, -1, 1)),
    "gain 0.9": (lambda x: 0.9 * x, lambda x: 0.9 * x.flip(3)),
    "noise of 1 %": (partial(_noisy, share=0.01), lambda x: _noisy(x.flip(3), 0.01)),
    "noise of 3 %": (partial(_noisy, share=0.03), lambda x: _noisy(x.flip(3), 0.03)),
    "one band replaced": (lambda x: _band_replaced(x, x), lambda x: _band_replaced(x, x.roll(1, 0))),
    "flipped, shifted, darker and noisy": (
        lambda x: _noisy(0.9 * shift(x.flip(3), -2, 1), 0.01),
        lambda x: _noisy(0.9 * shift(x.flip(2), 2, 0), 0.01),
    ),
}
