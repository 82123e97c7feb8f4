"""What calibration learns from the first half of the training patients: encoder, segmenter, bases, manifold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthgen.contracts import Provenance
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.wavelengths import same_wavelengths
from synthgen.errors import MismatchError
from synthgen.quality.features.blocks import Cubes
from synthgen.quality.features.encoder import Encoder, train_encoder
from synthgen.quality.features.handcrafted import block_sizes, filled_logs, set_features
from synthgen.quality.features.pretrained import load_encoder
from synthgen.quality.features.projection import Fingerprint, Space
from synthgen.quality.features.regions import REGIONS, regions_of, structure_blocks, structure_features
from synthgen.quality.io import GATES, read_parts
from synthgen.quality.per_cube.extractor import Instruments
from synthgen.quality.per_cube.memorization import MemorizationDetector
from synthgen.quality.per_cube.plausibility import Plausibility
from synthgen.quality.segmenter.segmenter import CONFIDENT, STRUCTURES, Segmenter, dice, fine_tune, load_segmenter
from synthgen.quality.sets.statistics import Lens
from synthgen.runs.progress import progress

Array = NDArray[np.float64]


def learn_encoder(given: str | None, fit: Cubes, steps: int, seed: int, provenance: Provenance) -> Encoder:
    """The encoder that was given, or one trained by self-supervision on `fit`."""
    if given is not None and (Path(given) / GATES.about).exists():
        return _of_gates(given, fit).encoder.to(fit.device)
    if given is not None:
        return load_encoder(given, fit.cohorts[0].wavelengths).to(fit.device)
    with progress("encoder", steps, "step") as bar:
        return train_encoder(
            fit.all(),
            steps=steps,
            seed=seed,
            device=fit.device,
            provenance=provenance,
            on_step=lambda loss: bar.advance(loss=loss),
        )


def learn_memorization(given: str | None, bank: Cubes, steps: int, seed: int) -> MemorizationDetector:
    """The memorization detector: that of given gates over these cubes, or one trained on the cubes that it guards."""
    if given is not None:
        return _of_gates(given, bank).memorization.to(bank.device).with_bank(bank.all())
    with progress("memorization detector", steps, "step") as bar:
        return MemorizationDetector.fit(
            bank.all(), steps=steps, seed=seed, device=bank.device, on_step=lambda loss: bar.advance(loss=loss)
        )


def learn_segmenter(name: str, fit: Cubes, unseen: Cubes, steps: int, seed: int) -> tuple[Segmenter | None, str, dict]:
    """The segmenter, fine-tuned where the cohort has masks; a note; its Dice on unseen cubes of the same cohort.

    None where the cohort's bands do not cover the segmenter's: then structures cannot be certified.
    """
    cohort = fit.cohorts[0]
    segmenter = load_segmenter(name, fit.device)
    reason = segmenter.unreadable(cohort.wavelengths)
    if reason is not None:
        return None, reason, {}
    masks = _masks(cohort, fit.indices[0])
    note = f"structures found by the segmenter '{name}'"
    if masks and steps:
        with progress("segmenter", steps, "step") as bar:
            segmenter = fine_tune(
                segmenter,
                fit.all(),
                masks,
                cohort.wavelengths,
                steps=steps,
                seed=seed,
                device=fit.device,
                on_step=lambda loss: bar.advance(loss=loss),
            )
        note += f", fine-tuned on the cohort's masks of {', '.join(sorted(masks))}"
    truth = _masks(cohort, unseen.indices[0]) if masks and len(unseen.indices[0]) else {}
    return segmenter, note, _dice(segmenter, unseen, truth) if truth else {}


def _of_gates(folder: str, cubes: Cubes) -> Instruments:
    """The instruments of given gates; MismatchError when they are for other bands."""
    parts, _ = read_parts(folder)
    if not same_wavelengths(parts["limits"].wavelengths_nm, cubes.cohorts[0].wavelengths):
        raise MismatchError(
            "the networks of these gates are for other bands",
            path=folder,
            found=parts["limits"].wavelengths_nm,
            expected=cubes.cohorts[0].wavelengths,
        )
    return parts["instruments"]


def _masks(cohort: Cohort, index: np.ndarray) -> dict[str, np.ndarray]:
    return {name: mask for name, mask in cohort.masks(index).items() if name in STRUCTURES and mask.any()}


def _dice(segmenter: Segmenter, unseen: Cubes, truth: Mapping[str, np.ndarray]) -> dict[str, float]:
    own = Cubes(unseen.cohorts[:1], unseen.indices[:1], unseen.device)
    wavelengths = own.cohorts[0].wavelengths
    sure = own.map(lambda x: segmenter.probabilities(x, wavelengths) > CONFIDENT).astype(bool)
    scores = dice({name: sure[:, k] for k, name in enumerate(STRUCTURES)}, truth)
    return {name: float(score) for name, score in scores.items() if np.isfinite(score)}


def assemble(
    encoder: Encoder, segmenter: Segmenter | None, memorization: MemorizationDetector, fit: Cubes, other: Cubes
) -> tuple[Instruments, Lens, dict[str, Array]]:
    """Bases, fingerprints and manifold from the cubes of `fit`; `other` only scales what the bases leave over.

    Also returns the columns of `fit` by name.
    """
    cohort = fit.cohorts[0]
    blocks = {"encoder": (encoder.dimension,), "spectra": block_sizes(cohort.bands)}
    looks: dict[str, Callable[[Tensor], Tensor]] = {"encoder": encoder, "spectra": set_features}
    if segmenter is not None:
        blocks["structures"] = structure_blocks(cohort.bands)
        looks["structures"] = lambda x: structure_features(
            regions_of(filled_logs(x), segmenter.probabilities(x, cohort.wavelengths))
        )
    spaces = {name: Space.fit(fit.map(look), other.map(look), blocks[name]) for name, look in looks.items()}
    spaces = {name: space.to(fit.device) for name, space in spaces.items()}
    empty = Plausibility({"manifold": torch.zeros(1, 1)}, (), (), cohort.wavelengths)
    bare = Instruments(encoder, segmenter, spaces, memorization, empty)
    own = columns_of(bare, fit, cohort.wavelengths)
    spectra = {name: own[name] for name in REGIONS if name in own}
    prints = {name: found for name in spectra if (found := Fingerprint.fit(spectra[name])) is not None}
    contrasts = {
        name: found
        for name in STRUCTURES
        if f"{name}_contrast" in own and (found := Fingerprint.fit(own[f"{name}_contrast"])) is not None
    }
    plausibility = Plausibility.fit(spectra, own["encoder"], cohort.wavelengths).to(fit.device)
    dimensions = {name: space.dimension for name, space in spaces.items()}
    return Instruments(encoder, segmenter, spaces, memorization, plausibility), Lens(prints, contrasts, dimensions), own


def columns_of(instruments: Instruments, cubes: Cubes, wavelengths: tuple[float, ...]) -> dict[str, Array]:
    """The columns of `Rows` of some cubes, in blocks."""
    with torch.no_grad():
        parts = [instruments.columns(block, wavelengths) for block in cubes.blocks()]
    return {name: torch.cat([p[name].cpu() for p in parts]).double().numpy() for name in parts[0] if name != "side"}
