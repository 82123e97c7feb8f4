"""Calibration: from real cubes to gates, every limit a quantile of real against real.

    synthgen calibrate --data cohort.h5 --out gates

Training patients are halved: everything learned (encoder, bases, manifold, the segmenter's last steps) is fitted on the
first half. The second half and the calibration patients, whom nothing fitted has seen, are the reference of every set
statistic, and their patient-disjoint halves give its null. Authenticity alone takes all training patients as its bank,
because a generator may have copied any of them, and its conformal limit from the calibration patients. Test patients
are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import AliasChoices, Field

from synthgen.config import Config
from synthgen.contracts import Embedding, Provenance, content_hash
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import Split, load_or_make_split
from synthgen.cubes.wavelengths import same_wavelengths
from synthgen.errors import InputError, LeakError, MismatchError
from synthgen.quality.features.blocks import Cubes
from synthgen.quality.features.encoder import STEPS, Encoder
from synthgen.quality.features.regions import REGIONS
from synthgen.quality.fit import assemble, columns_of, learn_encoder, learn_memorization, learn_segmenter
from synthgen.quality.gates import IMAGES, PIGMENT_NM, Gates, load_gates
from synthgen.quality.limits import Authenticity, Limits, Plausible, SizeLimits
from synthgen.quality.per_cube.conformal import lower_limit, needed_patients
from synthgen.quality.per_cube.extractor import Instruments
from synthgen.quality.per_cube.memorization import ROUNDING
from synthgen.quality.per_cube.plausibility import limits_of
from synthgen.quality.per_cube.validity import Facts, ValidityLimits, facts_of
from synthgen.quality.sets.metrics import mean_pairwise
from synthgen.quality.sets.null import family_of, null_distribution, quantiles_of
from synthgen.quality.sets.pairwise_ms_ssim import image_range_of, to_images
from synthgen.quality.sets.statistics import RATIO, Lens
from synthgen.quality.sets.table import Rows
from synthgen.runs.locks import one_at_a_time
from synthgen.runs.processes.device import pick_device, set_threads
from synthgen.runs.progress import progress
from synthgen.runs.randomness import numpy_stream
from synthgen.science.ms_ssim import scales_that_fit, similarity_matrix

_LEAST_PATIENTS = 8  # training patients below which there is no manifold to speak of


class Calibration(Config):
    """How to calibrate gates."""

    command: ClassVar[str] = "calibrate"
    data: str = Field(description="cohort file of real cubes")
    out: str = Field(description="gates folder to write")
    unseen: tuple[str, ...] = Field((), description="more cohorts, of patients that the generator has not seen")
    encoder: str | None = Field(
        None,
        description="encoder to use: a backbone folder, NAME=WEIGHTS.safetensors (timm), or other gates; else trained",
    )
    memorization: str | None = Field(
        None,
        validation_alias=AliasChoices("memorization", "copies"),  # its name in settings files of earlier versions
        serialization_alias="copies",  # in the fingerprint of a study
        description="gates whose memorization detector to use over this bank; else trained",
    )
    segmenter: str = Field("phantom", description="segmenter to start from: packaged name or folder")
    seed: int = Field(0, ge=0, description="of every random choice and of the networks trained here")
    alpha: float = Field(0.05, gt=0, le=0.5, description="fraction of fresh real cubes that authenticity may reject")
    plausible_alpha: float = Field(0.01, gt=0, le=0.5, description="the same for each of the three plausibility gates")
    sizes: tuple[int, ...] = Field((25, 50, 100, 200, 400, 1000), description="set sizes, as far as cubes go")
    resamples: int = Field(200, ge=40, description="random real-against-real splits per size")
    encoder_steps: int = Field(STEPS, ge=1, description="training steps of the encoder")
    memorization_steps: int = Field(
        400,
        ge=1,
        validation_alias=AliasChoices("memorization_steps", "copies_steps"),  # as above
        serialization_alias="copies_steps",
        description="training steps of the memorization detector",
    )
    segmenter_steps: int = Field(200, ge=0, description="steps of fine-tuning on the cohort's own masks, if it has any")
    device: str | None = Field(None, description="cpu, cuda, cuda:1; by default the best there is")


def calibrate(config: Calibration, split: Split | None = None) -> Gates:
    """Calibrate on the training and calibration patients of `split` (by default the one kept beside the cohort).

    Writes the gates folder and returns the gates as read back from it. InputError: cubes not finite, not square, too
    few patients. MismatchError: the cohorts do not fit each other, or the encoder is for other bands.
    """
    with one_at_a_time(config.out, make=True):
        return _calibrate(config, split)


def _calibrate(config: Calibration, split: Split | None) -> Gates:
    set_threads()
    cohorts = _open(config)
    cohort, device = cohorts[0], pick_device(config.device)
    split = split or load_or_make_split(cohort)
    if len(split.train) < _LEAST_PATIENTS:
        raise InputError(
            "too few training patients to calibrate on",
            path=cohort.path,
            found=len(split.train),
            expected=f"at least {_LEAST_PATIENTS}",
            remedy="add patients, or give more of them to training when the split is made",
        )
    rng = numpy_stream(config.seed, "calibrate")
    first, second = _halves(split.train, rng)
    fit = Cubes((cohort,), (cohort.index_of(first),), device)
    bank = Cubes((cohort,), (cohort.index_of(split.train),), device)
    fresh = Cubes(cohorts, (cohort.index_of(split.calibration), *(np.arange(len(c)) for c in cohorts[1:])), device)
    held = Cubes(
        (cohort, *fresh.cohorts), (cohort.index_of(second), *fresh.indices), device
    )  # patients of the second half, then the fresh ones

    encoder = learn_encoder(config.encoder, fit, config.encoder_steps, config.seed, cohort.provenance(first))
    segmenter, note, scores = learn_segmenter(config.segmenter, fit, fresh, config.segmenter_steps, config.seed)
    _check_unseen(encoder, held)
    memorization = learn_memorization(config.memorization, bank, config.memorization_steps, config.seed)
    instruments, lens, _ = assemble(encoder, segmenter, memorization, fit, held)

    reference = _reference(instruments, held, fresh)
    image_range, scales = image_range_of(fit.all()), scales_that_fit(cohort.height)
    if scales == 0:
        raise InputError("too small for MS-SSIM", path=cohort.path, found=cohort.height, expected="at least 11 pixels")
    some = held.take(_one_per_patient(held.patients, IMAGES, rng))
    similarity = similarity_matrix(to_images(some.all(), image_range))
    red = [i for i, nm in enumerate(cohort.wavelengths) if PIGMENT_NM[0] <= nm <= PIGMENT_NM[1]]
    low, high = np.nanquantile(reference["background"][:, red or slice(None)].mean(1), [1 / 3, 2 / 3])
    networks = {"encoder": encoder.about(), "copies": memorization.about()}
    if segmenter is not None:
        networks["segmenter"] = segmenter.about()
    limits = Limits(
        wavelengths_nm=cohort.wavelengths,
        size=cohort.height,
        seed=config.seed,
        validity=ValidityLimits.of(_facts(fit, held)),
        authenticity=_authenticity(reference, config.alpha),
        plausible=_plausible(instruments, reference, config.plausible_alpha),
        pigment=(float(low), float(high)),
        sets=_set_limits(config, lens, reference, similarity),
        structures_note=note,
        structures=segmenter is not None,
        dice=scores,
        real_similarity=mean_pairwise(similarity),
        ms_ssim_scales=scales,
        embeddings=_embeddings(instruments, fit),
        networks=networks,
        provenance=_provenance(cohorts, split),
    )
    prints, contrasts = dict(lens.fingerprints), dict(lens.contrasts)
    Gates(limits, instruments.to("cpu"), prints, contrasts, reference, similarity, image_range.cpu()).save(config.out)
    return load_gates(Path(config.out))


def _open(config: Calibration) -> tuple[Cohort, ...]:
    cohorts = tuple(Cohort.open(path) for path in (config.data, *config.unseen))
    first = cohorts[0]
    for cohort in cohorts:
        cohort.check_finite()
        if cohort.height != cohort.width:
            raise InputError("the cubes are not square", path=cohort.path, found=f"{cohort.height}x{cohort.width}")
        if not same_wavelengths(cohort.wavelengths, first.wavelengths) or cohort.height != first.height:
            raise MismatchError(
                "the cohorts do not fit each other",
                path=cohort.path,
                found=f"{cohort.bands} bands at {cohort.height} pixels",
                expected=f"the {first.bands} bands and {first.height} pixels of {first.path}",
                remedy="ingest them alike",
            )
    for cohort in cohorts[1:]:
        known = sorted(set(cohort.patients) & set(first.patients))
        if known:
            raise InputError(
                "an unseen cohort has patients of the first",
                path=cohort.path,
                found=", ".join(known[:5]),
                expected="none",
            )
    return cohorts


def _halves(patients: Sequence[str], rng: np.random.Generator) -> tuple[tuple[str, ...], tuple[str, ...]]:
    order = rng.permutation(sorted(patients)).tolist()
    middle = (len(order) + 1) // 2
    return tuple(sorted(order[:middle])), tuple(sorted(order[middle:]))


def _check_unseen(encoder: Encoder, held: Cubes) -> None:
    """LeakError when a given encoder was trained on patients that are to be its unseen reference."""
    if encoder.trained_on is None:
        return
    names = [str(p) for c, i in zip(held.cohorts, held.indices, strict=True) for p in c.patient_id[i]]
    seen = encoder.trained_on.seen(names)
    if seen:
        raise LeakError(
            f"the encoder was trained on {len(seen)} of the patients that it is to be calibrated on",
            found=", ".join(seen[:5]) + (", ..." if len(seen) > 5 else ""),
            expected="none",
            remedy="leave --encoder out, or give one of other patients",
        )


def _reference(instruments: Instruments, held: Cubes, fresh: Cubes) -> Rows:
    """Rows of the held cubes; the authenticity score of the fresh ones alone, NaN for those in the bank."""
    columns = columns_of(instruments, held, held.cohorts[0].wavelengths)
    score = np.full(len(held), np.nan)
    if len(fresh):
        score[len(held) - len(fresh) :] = fresh.map(lambda x: instruments.memorization.nearest(x).score)
    patients = np.unique(held.patients, return_inverse=True)[1]  # numbers: no patient's name leaves the cohort
    return Rows.of({**columns, "score": score}, patients)


def _authenticity(reference: Rows, alpha: float) -> Authenticity:
    scores = reference["score"].astype(np.float64)
    known = np.isfinite(scores)
    scores, patients = scores[known], reference.patients[known]
    found = len(set(patients.tolist()))
    limit = lower_limit(scores, patients, alpha) if found else None
    if limit is None or limit <= ROUNDING:
        why = f"{found} calibration patients, {needed_patients(alpha)} needed"
        if limit is not None:
            why = f"fresh cubes lie as near to training cubes as copies do (score {limit:.2g}); train it longer"
        note = f"cannot certify authenticity at {alpha:.0%}: {why}"
        return Authenticity(alpha=alpha, limit=None, strict=None, strict_alpha=1.0, patients=found, note=note)
    note = f"conformal limit at {alpha:.0%} from {len(scores)} cubes of {found} calibration patients"
    strict = 1 / (found + 1)
    return Authenticity(
        alpha=alpha,
        limit=limit,
        strict=lower_limit(scores, patients, strict),
        strict_alpha=strict,
        patients=found,
        note=note,
    )


def _plausible(instruments: Instruments, reference: Rows, alpha: float) -> Plausible:
    gates, patients = instruments.plausibility.to("cpu"), reference.patients
    spectra = {name: torch.from_numpy(reference[name]) for name in REGIONS if name in reference.columns}
    scores = {k: v.numpy() for k, v in gates.scores(spectra, torch.from_numpy(reference["encoder"])).items()}
    limits, found = limits_of(scores, patients, alpha), len(set(patients.tolist()))
    note = f"conformal limits at {alpha:.1%} each from {found} patients"
    if limits is None:
        note = f"cannot certify plausibility at {alpha:.1%}: {found} patients, {needed_patients(alpha)} needed"
    return Plausible(alpha=alpha, limits=limits, signs=gates.signs, std=gates.std, patients=found, note=note)


def _set_limits(config: Calibration, lens: Lens, reference: Rows, similarity: np.ndarray) -> tuple[SizeLimits, ...]:
    sizes = [s for s in sorted(set(config.sizes)) if 2 * s <= len(reference)]
    found = []
    with progress("null", len(sizes) * config.resamples, "split") as bar:
        for size in sizes:
            rng = numpy_stream(config.seed, "null", size)
            null = null_distribution(lens, reference, similarity, size, config.resamples, rng, bar.advance)
            if null is None:
                continue
            family = family_of(null)
            found.append(
                SizeLimits(
                    size=size,
                    resamples=config.resamples,
                    frechet_median=float(np.median(null[RATIO])),
                    middle=family.middle,
                    width=family.width,
                    tail_start=family.start,
                    tail_excess=family.excess,
                    null=quantiles_of(null),
                )
            )
    return tuple(found)


def _embeddings(instruments: Instruments, fit: Cubes) -> tuple[Embedding, ...]:
    encoder, spaces = instruments.encoder, instruments.spaces
    learned = f"{len(fit)} cubes of {len(set(fit.patients))} training patients"
    given = (
        "another cohort" if encoder.trained_on is None else f"patients of cohort {encoder.trained_on.cohort_hash[:12]}"
    )
    untrained = {
        "spectra": "log-spectra of a grid, band covariance, gradient energy",
        "structures": "difference of veins from arteries, place of the disc, vessels in each quarter",
    }
    return (
        Embedding(name=encoder.name, hash=encoder.hash, dimension=encoder.dimension, trained_on=given),
        *(
            Embedding(
                name=name,
                hash=content_hash(*spaces[key].to("cpu").tensors().values()),
                dimension=spaces[key].dimension,
                trained_on=f"untrained; its axes are principal components of {learned}",
            )
            for key, name in untrained.items()
            if key in spaces
        ),
    )


def _provenance(cohorts: tuple[Cohort, ...], split: Split) -> Provenance:
    also = [c.provenance(c.patients) for c in cohorts[1:]]
    own = cohorts[0].provenance((*split.train, *split.calibration))
    return own.model_copy(update={"also": (*own.also, *also)})


def _facts(*parts: Cubes) -> Facts:
    found = [facts_of(block)[0] for part in parts for block in part.blocks()]
    return Facts(*(torch.cat(column) for column in zip(*found, strict=True)))


def _one_per_patient(patients: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places of cubes of at most `count` patients drawn at random, one of each; ascending."""
    drawn = rng.permutation(np.unique(patients))[:count]
    return np.sort([rng.choice(np.flatnonzero(patients == p)) for p in drawn])
