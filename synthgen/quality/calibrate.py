"""Calibration: from real cubes to gates, every limit a quantile of real against real.

    synthgen calibrate --data cohort.h5 --out gates

Training patients give the bank of the copy detector and train the segmenter; calibration patients, whom neither has
seen, give the conformal limit of authenticity and the segmenter's Dice; both together are the real set that synthetic
sets are compared with; its patient-disjoint halves give the null of every set statistic. Test patients are not read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from synthgen.config import Config, from_command_line
from synthgen.cubes.cohort import Cohort
from synthgen.cubes.reflectance import BandStatistics
from synthgen.cubes.splits import Split, load_or_make_split
from synthgen.errors import InputError, must_exist, one_line_errors
from synthgen.quality.conformal import lower_limit, needed_patients
from synthgen.quality.copies import CopyDetector
from synthgen.quality.embedding import filled_logs
from synthgen.quality.gates import Gates, Limits, Reference, SizeLimits, load_gates, to_images
from synthgen.quality.metrics import mean_pairwise, ms_ssim_scales
from synthgen.quality.null import family_limits, null_distribution
from synthgen.quality.segment import STRUCTURES, Segmenter, dice, train_segmenter
from synthgen.quality.sets import FRECHET, SetFeatures, one_per_patient, set_features_of, similarity_matrix
from synthgen.quality.validity import Facts, ValidityLimits, facts_of
from synthgen.runs.device import pick_device, set_threads
from synthgen.runs.progress import progress
from synthgen.runs.randomness import numpy_stream

_CHUNK = 256
_LEAST_CUBES = 8  # training cubes below which there is no manifold to speak of


class Calibration(Config):
    """How to calibrate gates."""

    data: str = Field(description="cohort file of real cubes")
    out: str = Field(description="gates folder to write")
    seed: int = Field(0, ge=0, description="of the splits and of the segmenter")
    alpha: float = Field(0.05, gt=0, le=0.5, description="share of fresh real cubes that authenticity may reject")
    sizes: tuple[int, ...] = Field((25, 50, 100, 200, 400), description="set sizes to calibrate, as far as cubes go")
    resamples: int = Field(200, ge=40, description="random real-against-real splits per size")
    similarity_images: int = Field(45, ge=10, description="cubes of different patients whose pairs give MS-SSIM")
    segmenter_steps: int = Field(600, ge=1, description="training steps of the segmenter")
    device: str | None = Field(None, description="cpu, cuda, cuda:1; by default the best there is")


def calibrate(config: Calibration, split: Split | None = None) -> Gates:
    """Calibrate on the training and calibration patients of `split` (by default the one kept beside the cohort).

    Writes the gates folder and returns the gates as read back from it. InputError: cubes not finite, too few of them.
    """
    cohort = Cohort.open(config.data)
    cohort.check_finite()
    if cohort.height != cohort.width:
        raise InputError("the cubes are not square", path=cohort.path, found=f"{cohort.height}x{cohort.width}")
    split = split or load_or_make_split(cohort)
    train, held = cohort.index_of(split.train), cohort.index_of(split.calibration)
    if len(train) < _LEAST_CUBES:
        raise InputError(
            "too few training cubes to calibrate on",
            path=cohort.path,
            found=len(train),
            expected=f"at least {_LEAST_CUBES}",
        )
    device = pick_device(config.device)
    index = np.concatenate([train, held])
    patients = cohort.patient_id[index]
    cubes = torch.from_numpy(cohort.cubes(index)).to(device)

    copies = CopyDetector.fit(cubes[: len(train)])
    blocks = cubes[len(train) :].split(_CHUNK)
    nearest = [copies.nearest(filled_logs(b))[0] for b in blocks] if len(held) else []
    distance = torch.cat(nearest).cpu().double().numpy() if nearest else np.zeros(0)
    authenticity, note = _authenticity(distance, patients[len(train) :], config.alpha)
    segmenter, trained, structures_note, scores = _segmenter(config, cohort, cubes, train, held)

    rng = numpy_stream(config.seed, "calibrate")
    owners = np.unique(patients, return_inverse=True)[1].astype(str)  # numbers: no patient's name leaves the cohort
    features = set_features_of(cubes, segmenter, owners)
    image_range = _image_range(cubes)
    scales = ms_ssim_scales(cohort.height)
    if scales == 0:
        raise InputError("too small for MS-SSIM", path=cohort.path, found=cohort.height, expected="at least 11 pixels")
    some = torch.from_numpy(one_per_patient(owners, config.similarity_images, rng))
    similarity = similarity_matrix(to_images(cubes[some.to(device)], image_range))
    statistics = segmenter.statistics if segmenter is not None else BandStatistics((), ())
    limits = Limits(
        wavelengths_nm=cohort.wavelengths,
        size=cohort.height,
        alpha=config.alpha,
        seed=config.seed,
        validity=ValidityLimits.of(_facts(cubes)),
        authenticity=authenticity,
        authenticity_note=note,
        calibration_patients=len(split.calibration),
        sets=_set_limits(config, features, similarity, cohort.bands),
        structures=trained,
        structures_note=structures_note,
        dice={name: score for name, score in scores.items() if np.isfinite(score)},
        segmenter_mean=statistics.mean,
        segmenter_std=statistics.std,
        real_similarity=mean_pairwise(similarity),
        ms_ssim_scales=scales,
        provenance=cohort.provenance((*split.train, *split.calibration)),
    )
    Gates(limits, copies.to("cpu"), segmenter, Reference(features, similarity, image_range.cpu())).save(config.out)
    return load_gates(Path(config.out))


def _authenticity(distance: np.ndarray, patients: np.ndarray, alpha: float) -> tuple[float | None, str]:
    limit = lower_limit(distance, patients, alpha) if len(distance) else None
    found = len(set(patients.tolist()))
    if limit is None:
        return None, (
            f"cannot certify authenticity at {alpha:.0%}: {found} calibration patients, {needed_patients(alpha)} needed"
        )
    return limit, f"conformal limit at {alpha:.0%} from {len(distance)} cubes of {found} calibration patients"


def _segmenter(
    config: Calibration, cohort: Cohort, cubes: Tensor, train: np.ndarray, held: np.ndarray
) -> tuple[Segmenter | None, tuple[str, ...], str, dict[str, float]]:
    """The segmenter, the structures it knows, a note, and its Dice on calibration patients."""
    masks = cohort.masks(train)
    known = tuple(name for name in STRUCTURES if name in masks and masks[name].any())
    if not known:
        return None, (), "the cohort has no masks of arteries, veins or disc to train a segmenter on", {}
    with progress("segmenter", config.segmenter_steps, "step") as bar:
        segmenter = train_segmenter(
            cubes[: len(train)].cpu().numpy(),
            {name: masks[name] for name in known},
            steps=config.segmenter_steps,
            seed=config.seed,
            device=cubes.device,
            on_step=lambda loss: bar.advance(loss=loss),
        )
    scores = dice(segmenter.masks(cubes[len(train) :]), cohort.masks(held)) if len(held) else {}
    note = f"segmenter trained on masks of {', '.join(known)}"
    return segmenter, known, note, {name: scores[name] for name in known if name in scores}


def _set_limits(
    config: Calibration, features: SetFeatures, similarity: np.ndarray, bands: int
) -> tuple[SizeLimits, ...]:
    sizes = [s for s in sorted(set(config.sizes)) if 2 * s <= len(features)]
    found = []
    with progress("null", len(sizes) * config.resamples, "split") as bar:
        for size in sizes:
            rng = numpy_stream(config.seed, "null", size)
            null = null_distribution(features, similarity, size, config.resamples, bands, rng, bar.advance)
            if null is not None:
                found.append(
                    SizeLimits(
                        size=size,
                        resamples=config.resamples,
                        frechet_median=float(np.median(null[FRECHET])),
                        limits=family_limits(null),
                    )
                )
    return tuple(found)


def _facts(cubes: Tensor) -> Facts:
    return Facts(*(torch.cat(parts) for parts in zip(*(facts_of(c)[0] for c in cubes.split(_CHUNK)), strict=True)))


def _image_range(cubes: Tensor) -> Tensor:
    """[2, C]: the 0.5 % and 99.5 % quantiles of the log-reflectance of each band, over every 16th pixel."""
    logs = torch.cat([filled_logs(c).filled[:, :, ::4, ::4] for c in cubes.split(_CHUNK)])
    values = logs.transpose(0, 1).flatten(1).cpu().numpy()
    low, high = np.quantile(values, [0.005, 0.995], axis=1)
    return torch.from_numpy(np.stack([low, np.maximum(high, low + 1e-3)])).float().to(cubes.device)


def main(argv: Sequence[str] | None = None) -> None:
    """`synthgen calibrate` and `python -m synthgen.quality.calibrate`."""
    argv = sys.argv[1:] if argv is None else argv
    with one_line_errors("--debug" in argv):
        config, _ = from_command_line(Calibration, argv, "synthgen calibrate", "Make quality gates from real cubes.")
        must_exist(config.data)
        set_threads()
        gates = calibrate(config)
        limits = gates.limits
        print(f"{config.out}: gates {gates.hash} for {len(limits.wavelengths_nm)} bands at {limits.size}x{limits.size}")
        print(f"authenticity: {limits.authenticity_note}")
        dice_line = ", ".join(f"{name} Dice {score:.2f}" for name, score in limits.dice.items())
        print(f"structures: {limits.structures_note}; {dice_line or 'no Dice'}")
        sizes = ", ".join(str(s.size) for s in limits.sets) or "none (too few patients)"
        print(f"set sizes: {sizes}; MS-SSIM_{limits.ms_ssim_scales} of real pairs {limits.real_similarity:.3f}")


if __name__ == "__main__":
    main()
