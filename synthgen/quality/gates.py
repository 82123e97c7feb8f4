"""The gates: per-cube gates admit or reject single cubes, set gates certify what was admitted.

Verdicts: a value within its limit passes; it fails when its whole interval lies beyond the limit, and is undecided
between. The policy limit of the Frechet ratio leaves room above real-against-real, so there the whole interval must lie
within it to pass. Nothing passes for lack of data: too few cubes or patients make a check undecided.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from scipy.stats import beta
from torch import Tensor

from synthgen.config import Config
from synthgen.contracts import Admission, Check, Provenance, Status, Verdict
from synthgen.cubes.reflectance import BandStatistics
from synthgen.cubes.wavelengths import same_wavelengths
from synthgen.errors import InputError, MismatchError
from synthgen.quality.copies import CopyDetector
from synthgen.quality.embedding import filled_logs
from synthgen.quality.folder import read_folder, write_folder
from synthgen.quality.null import MS_SSIM, Estimate, compare, compare_similarity
from synthgen.quality.segment import STRUCTURES, Segmenter
from synthgen.quality.sets import FRECHET, PARTS, SetFeatures, set_features_of, similarity_matrix
from synthgen.quality.validity import ValidityLimits, facts_of, faults
from synthgen.runs.randomness import numpy_stream

PACKAGED = Path(__file__).parent / "packaged"
GOOD, USABLE = 1.5, 2.5  # policy: Frechet distance as a multiple of real against real at the same size
COPY = "nearly a copy of a training cube"
_CHUNK = 256


class SizeLimits(Config):
    """Limits for comparing two sets of `size` cubes each."""

    size: int
    resamples: int
    frechet_median: float = Field(description="median Frechet distance of real against real")
    limits: dict[str, float] = Field(description="family-wise 95 % limit of every other statistic")


class Limits(Config):
    """Everything in gates.json besides hash: the limits and how they came about."""

    wavelengths_nm: tuple[float, ...]
    size: int
    alpha: float = Field(description="probability that a fresh real cube is taken for a copy")
    seed: int
    validity: ValidityLimits
    authenticity: float | None = Field(description="least distance to the nearest training cube; null: cannot certify")
    authenticity_note: str
    calibration_patients: int
    sets: tuple[SizeLimits, ...] = Field(description="ascending sizes; empty: too few patients")
    structures: tuple[str, ...] = Field(description="structures that the segmenter was trained on")
    structures_note: str
    dice: dict[str, float] = Field(description="of the segmenter, on calibration patients")
    segmenter_mean: tuple[float, ...]
    segmenter_std: tuple[float, ...]
    real_similarity: float = Field(description="mean pairwise MS-SSIM of real cubes")
    ms_ssim_scales: int
    provenance: Provenance


@dataclass(frozen=True)
class Reference:
    """What is kept of the real cubes: set features, MS-SSIM [k, k] of some, the range [2, C] of the images compared."""

    features: SetFeatures
    similarity: np.ndarray
    image_range: Tensor


@dataclass(frozen=True, eq=False)
class Gates:
    """Calibrated gates. Call it with cubes for the per-cube gates; `certify` judges a set."""

    limits: Limits
    copies: CopyDetector
    segmenter: Segmenter | None
    reference: Reference

    @property
    def wavelengths(self) -> tuple[float, ...]:
        return self.limits.wavelengths_nm

    @property
    def size(self) -> int:
        return self.limits.size

    @property
    def provenance(self) -> Provenance:
        return self.limits.provenance

    @cached_property
    def hash(self) -> str:
        """Over every limit and every tensor."""
        return write_folder(None, self._about(), self._tensors())

    @torch.no_grad()
    def __call__(self, cubes: Tensor) -> Admission:
        """Judge cubes float32 [N, C, H, W] on the device they are on; scores: authenticity and nearest [N].

        MismatchError when bands or size are not those of the gates.
        """
        self.must_fit(cubes)
        parts = [self._judge(block) for block in cubes.split(_CHUNK)] if len(cubes) else []
        none = torch.zeros(0, device=cubes.device)
        return Admission(
            torch.cat([p.accept for p in parts]) if parts else none.bool(),
            tuple(reason for p in parts for reason in p.reasons),
            {k: torch.cat([p.scores[k] for p in parts]) if parts else none for k in ("authenticity", "nearest")},
        )

    def _judge(self, cubes: Tensor) -> Admission:
        facts, logs = facts_of(cubes)
        distance, nearest = self._copies_on(cubes.device).nearest(logs)
        found = faults(facts, self.limits.validity)
        if self.limits.authenticity is not None:
            found[COPY] = distance < self.limits.authenticity
        names, flags = list(found), torch.stack(list(found.values()), 1).cpu()
        reasons = tuple(names[int(row.int().argmax())] for row in flags if row.any())
        return Admission(~flags.any(1).to(cubes.device), reasons, {"authenticity": distance, "nearest": nearest})

    @torch.no_grad()
    def certify(
        self,
        cubes: Tensor | np.ndarray,
        proposed: int | None = None,
        rejected: int = 0,
        generator_hash: str | None = None,
    ) -> Verdict:
        """Judge a set of admitted cubes float32 [N, C, H, W] against the real ones.

        Args:
            proposed, rejected: counts at the per-cube gates. Without them the cubes are put through the gates here.
        """
        cubes = torch.as_tensor(cubes)
        self.must_fit(cubes)
        if proposed is None:
            proposed, rejected = len(cubes), int((~self(cubes).accept).sum())
        checks = [self._authenticity_check(proposed, rejected)]
        fitting = [s for s in self.limits.sets if s.size <= len(cubes)]
        if fitting:
            checks += self._set_checks(cubes, fitting[-1])
        else:
            least = self.limits.sets[0].size if self.limits.sets else None
            reason = f"{len(cubes)} cubes; at least {least} are needed" if least else "calibrated on too few patients"
            checks.append(Check(name="set", status=Status.UNDECIDED, n=len(cubes), reason=reason))
        states = {c.status for c in checks}
        status = next((s for s in (Status.FAIL, Status.UNDECIDED) if s in states), Status.PASS)
        return Verdict(
            status=status,
            checks=tuple(checks),
            proposed=proposed,
            accepted=len(cubes),
            generator_hash=generator_hash,
            gates_hash=self.hash,
        )

    def must_fit(self, cubes: Tensor, wavelengths: Sequence[float] | None = None) -> None:
        """MismatchError unless the cubes have the bands and size (and, where given, the wavelengths) of the gates."""
        expected = (len(self.wavelengths), self.size, self.size)
        remedy = "calibrate gates on real cubes of these bands and this size (synthgen calibrate)"
        if tuple(cubes.shape[1:]) != expected:
            raise MismatchError(
                "the gates are for cubes of another shape",
                found="x".join(map(str, cubes.shape[1:])),
                expected="x".join(map(str, expected)),
                remedy=remedy,
            )
        if wavelengths is not None and not same_wavelengths(wavelengths, self.wavelengths):
            raise MismatchError(
                "the gates are for other wavelengths", found=wavelengths, expected=self.wavelengths, remedy=remedy
            )

    def save(self, folder: str | os.PathLike) -> None:
        """Write the gates folder, all or nothing."""
        write_folder(folder, self._about(), self._tensors())

    def _copies_on(self, device: torch.device) -> CopyDetector:
        held = self.__dict__.setdefault("_moved", {})
        if device not in held:
            held[device] = self.copies.to(device)
        return held[device]

    def _authenticity_check(self, proposed: int, rejected: int) -> Check:
        name, limit = "rejected", 2 * self.limits.alpha
        if self.limits.authenticity is None:
            return Check(name=name, status=Status.UNDECIDED, n=proposed, reason=self.limits.authenticity_note)
        if proposed == 0:
            return Check(name=name, status=Status.UNDECIDED, n=0, reason="no cube was proposed")
        low, high = _clopper_pearson(rejected, proposed)
        share = rejected / proposed
        status = _decide(Estimate(share, low, high), limit)
        reason = f"{rejected} of {proposed} proposals rejected; of fresh real cubes at most {self.limits.alpha:.0%} are"
        return Check(
            name=name, status=status, value=share, interval=(low, high), limit=limit, n=proposed, reason=reason
        )

    def _set_checks(self, cubes: Tensor, at: SizeLimits) -> list[Check]:
        rng, n = numpy_stream(self.limits.seed, "certify"), len(cubes)
        if self.segmenter is not None:
            self.segmenter.to(cubes.device)
        query = set_features_of(cubes, self.segmenter)
        bands = len(self.wavelengths)
        found = compare(self.reference.features, query, at.size, bands, rng)
        distance = found.pop(FRECHET)
        ratio = Estimate(*(v / at.frechet_median for v in distance))
        grade = "good" if ratio.value <= GOOD else "usable" if ratio.value <= USABLE else "not usable"
        checks = [
            Check(
                name="frechet_ratio",
                status=_decide(ratio, USABLE, whole=True),
                value=ratio.value,
                interval=(ratio.low, ratio.high),
                limit=USABLE,
                n=n,
                reason=f"{ratio.value:.2f} times real against real at {at.size} cubes: {grade} (good up to {GOOD})",
            ),
            self._similarity_check(cubes, at, rng),
        ]
        for name in STRUCTURES:
            if name not in self.limits.structures:
                checks.append(Check(name=name, status=Status.ABSENT, n=n, reason=self.limits.structures_note))
                continue
            checks += [self._structure_check(f"{name}_{part}", found[f"{name}_{part}"], at, n) for part in PARTS]
        return checks

    def _structure_check(self, name: str, found: Estimate, at: SizeLimits, n: int) -> Check:
        limit = at.limits.get(name)
        if limit is None:
            return Check(name=name, status=Status.ABSENT, n=n, reason="found in too few real cubes to compare")
        if not np.isfinite(found.value):
            return Check(
                name=name, status=Status.ABSENT, limit=limit, n=n, reason="found in too few synthetic cubes to compare"
            )
        reason = f"divergence {found.value:.3g} from real cubes; between real sets of {at.size} at most {limit:.3g}"
        reason += f" (segmenter's Dice {self.limits.dice.get(name.split('_')[0], float('nan')):.2f})"
        return Check(
            name=name,
            status=_decide(found, limit),
            value=found.value,
            interval=(found.low, found.high),
            limit=limit,
            n=n,
            reason=reason,
        )

    def _similarity_check(self, cubes: Tensor, at: SizeLimits, rng: np.random.Generator) -> Check:
        name = f"{MS_SSIM}_{self.limits.ms_ssim_scales}_difference"
        limit = at.limits.get(MS_SSIM)
        if limit is None:
            return Check(name=name, status=Status.UNDECIDED, n=len(cubes), reason="too few real patients to compare")
        count = min(len(cubes), len(self.reference.similarity))
        chosen = torch.from_numpy(rng.choice(len(cubes), count, replace=False))
        made = similarity_matrix(to_images(cubes[chosen.to(cubes.device)], self.reference.image_range))
        signed = compare_similarity(self.reference.similarity, made, rng)
        ends = sorted((abs(signed.low), abs(signed.high)))
        low = 0.0 if signed.low <= 0 <= signed.high else ends[0]
        size = Estimate(abs(signed.value), low, ends[1])
        word = "more" if signed.value > 0 else "less"
        reason = f"synthetic cubes resemble each other {word} than real ones do: {signed.value:+.3f}, limit {limit:.3f}"
        return Check(
            name=name,
            status=_decide(size, limit),
            value=size.value,
            interval=(size.low, size.high),
            limit=limit,
            n=len(cubes),
            reason=reason,
        )

    def _about(self) -> dict:
        return self.limits.model_dump(mode="json")

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        real = self.reference.features
        reference = {
            "features": torch.from_numpy(real.features).float(),
            "patients": torch.from_numpy(real.patients.astype(np.int64)),
            "similarity": torch.from_numpy(self.reference.similarity).float(),
            "image_range": self.reference.image_range.float(),
        }
        for name in real.spectra:
            reference[f"spectra.{name}"] = torch.from_numpy(real.spectra[name]).float()
            reference[f"extent.{name}"] = torch.from_numpy(real.extent[name]).float()
        tensors = {
            "copies": {"mean": self.copies.mean, "whiten": self.copies.whiten, "bank": self.copies.bank},
            "reference": reference,
        }
        if self.segmenter is not None:
            tensors["segmenter"] = dict(self.segmenter.state_dict())
        return tensors


def load_gates(path_or_name: str | os.PathLike) -> Gates:
    """Read a gates folder, or packaged gates by name ("phantom64"). InputError: missing, damaged or altered."""
    folder = Path(path_or_name)
    if not folder.exists() and (PACKAGED / folder).is_dir():
        folder = PACKAGED / folder
    about, tensors, found = read_folder(folder, Limits)
    try:
        copies, reference = tensors["copies"], tensors["reference"]
        detector = CopyDetector(copies["mean"], copies["whiten"], copies["bank"])
        structures = [k.removeprefix("spectra.") for k in reference if k.startswith("spectra.")]

        def array(name: str) -> np.ndarray:
            return reference[name].double().numpy()

        features = SetFeatures(
            array("features"),
            {name: array(f"spectra.{name}") for name in STRUCTURES if name in structures},
            {name: array(f"extent.{name}") for name in STRUCTURES if name in structures},
            reference["patients"].numpy(),
        )
        segmenter = None
        if about.structures:
            segmenter = Segmenter(BandStatistics(about.segmenter_mean, about.segmenter_std))
            segmenter.load_state_dict(tensors["segmenter"])
            segmenter.eval().requires_grad_(False)
    except (KeyError, RuntimeError) as error:
        raise InputError("the gates folder is not complete", path=folder, found=str(error).splitlines()[0]) from None
    gates = Gates(about, detector, segmenter, Reference(features, array("similarity"), reference["image_range"]))
    gates.__dict__["hash"] = found
    return gates


def to_images(cubes: Tensor, image_range: Tensor) -> Tensor:
    """Log-reflectance scaled per band to [0, 1], for MS-SSIM: in reflectance the dark blue would count for nothing.

    image_range [2, C]: the log-reflectance that becomes 0 and 1.
    """
    low, high = image_range.to(cubes.device)[:, :, None, None]
    return torch.cat([((filled_logs(c).filled - low) / (high - low)).clamp(0, 1) for c in cubes.split(_CHUNK)])


def _decide(found: Estimate, limit: float, whole: bool = False) -> Status:
    """pass, fail or undecided; `whole`: the whole interval must lie within the limit to pass, not the value alone."""
    if (found.high if whole else found.value) <= limit:
        return Status.PASS
    return Status.FAIL if found.low > limit else Status.UNDECIDED


def _clopper_pearson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a share."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high
