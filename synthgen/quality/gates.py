"""The gates: per-cube gates admit or reject single cubes, set gates certify what was admitted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthgen.contracts import Admission, Check, Provenance, Status, Verdict
from synthgen.cubes.reflectance import reflectance
from synthgen.cubes.wavelengths import same_wavelengths
from synthgen.errors import MismatchError
from synthgen.quality import checks
from synthgen.quality.features.projection import Fingerprint
from synthgen.quality.features.regions import REGIONS
from synthgen.quality.io import GATES, parts_of, read_parts, write_parts
from synthgen.quality.limits import Limits, SizeLimits
from synthgen.quality.per_cube import plausibility
from synthgen.quality.per_cube.acceptance import COPY, AcceptanceCounts
from synthgen.quality.per_cube.extractor import Instruments
from synthgen.quality.per_cube.memorization import MemorizationDetector
from synthgen.quality.per_cube.validity import facts_of, faults
from synthgen.quality.segmenter.segmenter import STRUCTURES
from synthgen.quality.sets.metrics import band_wasserstein
from synthgen.quality.sets.null import compare, compare_similarity
from synthgen.quality.sets.pairwise_ms_ssim import to_images
from synthgen.quality.sets.statistics import MS_SSIM, RATIO, SPACES, Lens
from synthgen.quality.sets.table import Rows
from synthgen.runs.randomness import numpy_stream
from synthgen.science.ms_ssim import similarity_matrix

PIGMENT_NM = (600.0, 700.0)  # where the background's brightness is mostly a matter of melanin
IMAGES = 60  # cubes whose pairs give MS-SSIM
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class Gates:
    """Calibrated gates. Call it with cubes for the per-cube gates; `certify` judges a set.

    reference: rows of real cubes that nothing here was fitted on. similarity [k, k]: MS-SSIM of some of them.
    image_range [2, C]: the log-reflectance that is 0 and 1 in those images.
    """

    limits: Limits
    instruments: Instruments
    fingerprints: dict[str, Fingerprint]
    contrasts: dict[str, Fingerprint]
    reference: Rows
    real_similarity: np.ndarray
    image_range: Tensor

    @property
    def wavelengths(self) -> tuple[float, ...]:
        return self.limits.wavelengths_nm

    @property
    def size(self) -> int:
        return self.limits.size

    @property
    def images(self) -> int:
        """How many cubes `similarity` wants at most."""
        return IMAGES

    @property
    def provenance(self) -> Provenance:
        return self.limits.provenance

    @property
    def memorization(self) -> MemorizationDetector:
        return self.instruments.memorization

    @cached_property
    def lens(self) -> Lens:
        spaces = self.instruments.spaces
        dimensions = {name: spaces[name].dimension for name in SPACES if name in spaces}
        return Lens(self.fingerprints, self.contrasts, dimensions)

    @cached_property
    def hash(self) -> str:
        """Over every limit and every tensor."""
        return GATES.hash_of(*parts_of(**self._fields()))

    @torch.no_grad()
    def __call__(self, cubes: Tensor) -> Admission:
        """Judge cubes float32 [N, C, H, W] on the device they are on.

        scores [N]: authenticity (small: a copy), nearest (index of the training cube), copy (bool), spectra, physics
        and density (large: implausible), pigment (0 light to 2 dark), side (-1, 0, 1: where the disc lies).

        MismatchError when bands or size are not those of the gates.
        """
        self.must_fit(cubes)
        with torch.no_grad():
            parts = [self._judge(block) for block in (cubes.split(_CHUNK) if len(cubes) else (cubes,))]
        return Admission(
            torch.cat([p.accept for p in parts]),
            tuple(reason for p in parts for reason in p.reasons),
            {k: torch.cat([p.scores[k] for p in parts]) for k in parts[0].scores},
            {k: torch.cat([p.columns[k] for p in parts]) for k in parts[0].columns},
        )

    def _judge(self, cubes: Tensor) -> Admission:
        here = self._on(cubes.device)
        facts, logs = facts_of(cubes)
        whole = cubes if bool(facts.finite.all()) else torch.nan_to_num(cubes, nan=0.0, posinf=0.0, neginf=0.0)
        columns = here.columns(whole, self.wavelengths, logs)
        near = here.memorization.nearest(whole)
        side = columns.pop("side")
        scores = here.plausibility.scores({n: columns[n] for n in REGIONS if n in columns}, columns["encoder"])
        found = faults(facts, self.limits.validity)
        copy = torch.zeros_like(facts.finite)
        if self.limits.authenticity.limit is not None:
            copy = facts.finite & (near.score < self.limits.authenticity.limit)
        found[COPY] = copy
        if self.limits.plausible.limits is not None:
            for name, limit in self.limits.plausible.limits.items():
                found[plausibility.REASONS[name]] = scores[name] > limit
        names, flags = list(found), torch.stack(list(found.values()), 1).cpu()
        reasons = tuple(names[int(row.int().argmax())] for row in flags if row.any())
        scores = {
            "authenticity": near.score,
            "contrastive": near.contrastive,
            "coarse": near.coarse,
            "nearest": near.index,
            "copy": copy,
            "pigment": self._pigment(columns["background"]),
            "side": side,
            **scores,
        }
        columns["score"] = near.score
        return Admission(~flags.any(1).to(cubes.device), reasons, scores, columns)

    def _pigment(self, background: Tensor) -> Tensor:
        bands = [i for i, nm in enumerate(self.wavelengths) if PIGMENT_NM[0] <= nm <= PIGMENT_NM[1]]
        level = background[:, bands or slice(None)].mean(1).nan_to_num()
        low, high = self.limits.pigment
        return (level < high).long() + (level < low).long()

    def rows(self, admission: Admission, everything: bool = False) -> Rows:
        """The rows of the cubes that were admitted (or of every one), for `certify`."""
        keep = slice(None) if everything else admission.accept
        columns = {name: column[keep].cpu().numpy() for name, column in admission.columns.items()}
        return Rows.of(columns, made_by=self.hash)

    @torch.no_grad()
    def similarity(self, cubes: Tensor, everything: bool = False) -> np.ndarray:
        """MS-SSIM [k, k] of every pair of cubes [k, C, H, W], the first `images` of them (or of all)."""
        some = cubes if everything else cubes[: self.images]
        return similarity_matrix(to_images(some, self.image_range))

    def judge(
        self, cubes: Tensor | np.ndarray, generator_hash: str | None = None
    ) -> tuple[Verdict, Rows, AcceptanceCounts]:
        """Put cubes through the per-cube gates and judge the admitted ones."""
        cubes = torch.as_tensor(cubes)
        admission = self(cubes)
        rows, acceptance = self.rows(admission), AcceptanceCounts.of(admission)
        admitted = cubes[admission.accept]
        similarity = self.similarity(admitted) if len(admitted) > 1 else None
        return self.certify(rows, acceptance, similarity, generator_hash), rows, acceptance

    def certify(
        self,
        rows: Rows,
        acceptance: AcceptanceCounts,
        similarity: np.ndarray | None,
        generator_hash: str | None = None,
        *,
        alpha: float = 0.05,
    ) -> Verdict:
        """Judge a set of admitted cubes against the real ones.

        Args:
            rows: of the admitted cubes, by these gates. acceptance: of every proposal behind them.
            similarity: [k, k] of some admitted cubes; None: the check of diversity stays undecided.
            alpha: family-wise probability that the limits fail a set of real cubes; smaller where a verdict is one of
                many.

        MismatchError when the rows are another gates' (other bands, embedding or size).
        """
        if len(rows) and rows.made_by != self.hash:
            raise MismatchError(
                "the features were computed by other gates",
                found=rows.made_by,
                expected=self.hash,
                remedy="judge the cubes themselves by these gates",
            )
        found = self._acceptance_checks(acceptance, alpha)
        fitting = [s for s in self.limits.sets if s.size <= len(rows)]
        if fitting:
            found += self._set_checks(rows, similarity, fitting[-1], alpha)
        else:
            least = self.limits.sets[0].size if self.limits.sets else None
            reason = f"{len(rows)} cubes; at least {least} are needed" if least else "calibrated on too few patients"
            found.append(Check(name="set", status=Status.UNDECIDED, n=len(rows), reason=reason))
        return Verdict(
            status=checks.worst(c.status for c in found),
            checks=tuple(found),
            proposed=acceptance.proposed,
            accepted=len(rows),
            generator_hash=generator_hash,
            gates_hash=self.hash,
            embeddings=self.limits.embeddings,
        )

    def check_name(self, statistic: str) -> str:
        """The name of the check of a statistic."""
        if statistic == MS_SSIM:
            return f"{MS_SSIM}_{self.limits.ms_ssim_scales}_difference"
        return f"{RATIO}_ratio" if statistic == RATIO else statistic

    def spectra(self, rows: Rows) -> dict[str, np.ndarray]:
        """Mean reflectance [N, C] of each structure in each cube; NaN where it is absent."""
        return {name: reflectance(torch.from_numpy(rows[name])).numpy() for name in REGIONS if name in rows.columns}

    def wasserstein(self, rows: Rows) -> dict[str, np.ndarray]:
        """Per structure the Wasserstein distance [C] of each band from the real cubes, in reflectance: to read."""
        mine, real = self.spectra(rows), self.spectra(self.reference)
        return {name: band_wasserstein(real[name], mine[name]) for name in mine}

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
        write_parts(folder, *parts_of(**self._fields()))

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _on(self, device: torch.device) -> Instruments:
        held = self.__dict__.setdefault("_moved", {})
        if device not in held:
            held[device] = self.instruments.to(device)
        return held[device]

    def _acceptance_checks(self, acceptance: AcceptanceCounts, alpha: float) -> list[Check]:
        limits, unseen = self.limits.authenticity, self.reference["score"].astype(np.float64)
        known = np.flatnonzero(np.isfinite(unseen))
        first = known[np.unique(self.reference.patients[known], return_index=True)[1]]
        found = [
            checks.memorization_check(
                acceptance, limits.alpha, limits.limit, limits.strict, limits.strict_alpha, limits.note, alpha
            ),
            checks.copying_check(np.asarray(acceptance.scores), unseen[first], alpha),
            *checks.acceptance_checks(acceptance),
        ]
        if self.limits.plausible.limits is None:
            note = self.limits.plausible.note
            found.append(Check(name="plausibility", status=Status.UNDECIDED, n=acceptance.proposed, reason=note))
        return found

    def _set_checks(self, rows: Rows, similarity: np.ndarray | None, at: SizeLimits, alpha: float) -> list[Check]:
        rng, n = numpy_stream(self.limits.seed, "certify"), len(rows)
        estimates = compare(self.lens, self.reference, rows, at.size, rng)
        limits, found = at.family.limits(alpha), []
        for name, estimate in estimates.items():
            if name.direction:
                continue
            if name == RATIO:
                found.append(checks.frechet_check(self.check_name(name), estimate, at.frechet_median, at.size, n))
                continue
            forward, reverse = estimates.get(name.along("forward")), estimates.get(name.along("reverse"))
            more = ""
            if forward is not None and reverse is not None and estimate.value > limits.get(name, np.inf):
                more = ": real ones are missing" if forward.value > reverse.value else ": some are unlike any real one"
            found.append(checks.family_check(name, estimate, limits.get(name), at.size, n, more))
        if not self.limits.structures:
            note = self.limits.structures_note
            found += [Check(name=name, status=Status.UNDECIDED, n=n, reason=note) for name in STRUCTURES]
        name = self.check_name(MS_SSIM)
        if similarity is None or len(similarity) < 2:
            reason = "no images to compare"
            return [*found, Check(name=name, status=Status.UNDECIDED, n=n, reason=reason)]
        signed = compare_similarity(self.real_similarity, similarity, rng)
        return [*found, checks.similarity_check(name, signed, limits.get(MS_SSIM), n)]


def load_gates(path_or_name: str | os.PathLike) -> Gates:
    """Read a gates folder, or packaged gates by name ("phantom64"). InputError: missing, damaged or altered."""
    parts, stated = read_parts(path_or_name)
    gates = Gates(**parts)
    gates.__dict__["hash"] = stated
    gates.reference.__dict__["made_by"] = stated
    return gates
