"""What a verdict page shows, gathered from the gates, the cubes that were judged and the real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from synthgen.contracts import Manifest, Verdict
from synthgen.integration.bank import Bank
from synthgen.integration.judging import Findings, Neighbour, drawn
from synthgen.quality.gates import Gates, to_images
from synthgen.quality.sets import SetFeatures, one_per_patient, set_features_of, similarity_matrix
from synthgen.quality.validity import Facts, facts_of
from synthgen.report.verdict_page import Distribution, Pair, VerdictContent
from synthgen.report.verdict_style import number
from synthgen.runs.randomness import numpy_stream

SHOWN = 256  # cubes of each side behind the pictures; the verdict itself rests on all
COMPARED = 32  # cubes whose pairs give the distribution of MS-SSIM
_CHUNK = 64


class Side(NamedTuple):
    """What the distributions need of real or synthetic cubes. facts and distance are None where unknown."""

    features: SetFeatures
    facts: Facts | None
    distance: np.ndarray | None
    similarity: np.ndarray


@torch.no_grad()
def content_of(
    gates: Gates,
    verdict: Verdict,
    found: Findings,
    cubes: Tensor,
    *,
    title: str,
    bank: Bank | None = None,
    manifest: Manifest | None = None,
    notes: Sequence[str] = (),
) -> VerdictContent:
    """The content of the page on a set.

    Args:
        cubes: accepted cubes float32 [n, C, H, W] that the set gates saw.
        bank: real cubes to show beside them. Without it the real side is what the gates remember of theirs, and nearest
            training cubes cannot be pictured.
        manifest: of the shards, when shards were judged.
    """
    some = cubes[torch.from_numpy(drawn(len(cubes), SHOWN, "page"))]
    made = _made(gates, some, found)
    real, real_word = _real(gates, bank)
    pairs_note = _pairs_note(gates, bank)
    validity = gates.limits.validity
    envelope = {"synthetic": np.exp(made.facts.spectrum.numpy())} if made.facts is not None and len(some) else {}
    if real.facts is not None and envelope:
        envelope = {"real": np.exp(real.facts.spectrum.numpy()), **envelope}
    return VerdictContent(
        title=title,
        verdict=verdict.model_dump(mode="json"),
        facts=_facts(gates, verdict, found, real_word),
        wavelengths=gates.wavelengths,
        notes=[*notes, *([] if bank is None or bank.of_the_gates else [_OTHER_COHORT])],
        cubes=_single(gates, real, made, bank),
        envelope=envelope,
        envelope_limits=np.exp(np.array([validity.spectrum_low, validity.spectrum_high])),
        spectra={
            name: {
                "real": (real.features.spectra[name], real.features.patients),
                "synthetic": (made.features.spectra[name], made.features.patients),
            }
            for name in gates.limits.structures
            if name in real.features.spectra and name in made.features.spectra
        },
        spectra_note=f"Grey: {real_word}; colour: {len(some)} of the synthetic cubes. Line and dark band: geometric "
        "mean and its 95 % confidence at each wavelength by itself (of real cubes over patients); light band: the "
        "middle 90 % of the cubes. Below: difference of the means, with its confidence.",
        structures=_structures(gates, verdict, real.features, made.features),
        pairs=[_pair(gates, n, bank, {r.id: r.reason for r in found.rejected}) for n in found.nearest],
        pairs_note=pairs_note,
        diversity=_diversity(gates, verdict, real, made),
        alike=_alike(some, made.similarity),
        rejected=[(cube, f"cube {rejection.id}", rejection.reason) for rejection, cube in found.shown],
        rejected_by=Counter(r.reason for r in found.rejected),
        shards=_shards(manifest) if manifest is not None else (),
    )


_OTHER_COHORT = (
    "The real cohort is not the one that the gates were calibrated on (or it was split otherwise): distances on this "
    "page are to its training cubes. Near copies of these are rejected as well as those of the gates' training cubes."
)


def _made(gates: Gates, some: Tensor, found: Findings) -> Side:
    distance = np.array(found.distance)
    if not len(some):
        nothing = SetFeatures(np.zeros((0, 0)), {}, {}, np.zeros(0, str))
        return Side(nothing, None, distance, np.zeros((0, 0)))
    compared = to_images(some[:COMPARED], gates.reference.image_range)
    features = set_features_of(some, gates.segmenter)
    return Side(features, _facts_of(some), distance, _similarity(compared))


def _real(gates: Gates, bank: Bank | None) -> tuple[Side, str]:
    """The real side, and what it is in words."""
    if bank is None:
        count = len(gates.reference.features)
        words = f"{count} cubes of the training and calibration patients of the gates"
        return Side(gates.reference.features, None, None, gates.reference.similarity), words
    index = bank.unseen[drawn(len(bank.unseen), SHOWN, "real")]
    cubes = torch.from_numpy(bank.cohort.cubes(index))
    patients = bank.cohort.patient_id[index]
    near = [_distance(gates, bank, c) for c in cubes.split(_CHUNK)]
    apart = one_per_patient(patients, COMPARED, numpy_stream(0, "pairs"))  # left and right eyes, as they come
    images = to_images(cubes[torch.from_numpy(apart)], gates.reference.image_range)
    features = set_features_of(cubes, gates.segmenter, patients.tolist())
    side = Side(features, _facts_of(cubes), np.concatenate(near), _similarity(images))
    return side, f"{len(index)} cubes of {len(set(patients))} calibration and test patients of {bank.cohort.path.name}"


def _similarity(images: Tensor) -> np.ndarray:
    return similarity_matrix(images) if len(images) > 1 else np.zeros((len(images),) * 2)


def _distance(gates: Gates, bank: Bank, cubes: Tensor) -> np.ndarray:
    if bank.of_the_gates:
        return gates(cubes).scores["authenticity"].numpy()
    return bank.nearest(cubes)[0].numpy()


def _facts_of(cubes: Tensor) -> Facts:
    blocks = [facts_of(c)[0] for c in cubes.split(_CHUNK)]
    return Facts(*(torch.cat(parts).cpu() for parts in zip(*blocks, strict=True)))


def _facts(gates: Gates, verdict: Verdict, found: Findings, real: str) -> list[tuple[str, str]]:
    read = len(found.distance)
    before = found.proposed - read
    facts = [
        ("cubes judged", f"{read:,}" + (f" (and {before:,} rejected when they were written)" if before else "")),
        ("admitted one by one", f"{found.accepted:,}"),
        ("rejected", f"{len(found.rejected):,}"),
        ("real side", real),
        ("gates", str(verdict.gates_hash)),
    ]
    if verdict.generator_hash is not None:
        facts.append(("generator", verdict.generator_hash))
    return [*facts, ("authenticity", gates.limits.authenticity_note)]


def _limit(gates: Gates, bank: Bank | None) -> float | None:
    """The limit of the distances shown."""
    return gates.limits.authenticity if bank is None or bank.of_the_gates else bank.limit


def _groups(real: np.ndarray | None, made: np.ndarray | None) -> dict[str, np.ndarray]:
    pairs = (("real", real), ("synthetic", made))
    return {name: values for name, values in pairs if values is not None}


def _single(gates: Gates, real: Side, made: Side, bank: Bank | None) -> list[Distribution]:
    limits, limit = gates.limits, _limit(gates, bank)
    near = () if limit is None else (limit,)
    shown = [
        Distribution(
            "Distance to the nearest training cube",
            "distance (0: a copy, 1.4: unrelated)",
            _groups(real.distance, made.distance),
            near,
            "Below the limit a cube is taken for a copy. Every cube that was judged is counted, rejected ones too."
            if near
            else limits.authenticity_note,
        )
    ]
    if made.facts is None:
        return shown
    fov, top = limits.validity.field_of_view, limits.validity.highest
    lit = [100 * f.lit.numpy() if f is not None else None for f in (real.facts, made.facts)]
    high = [100 * f.highest.numpy() if f is not None else None for f in (real.facts, made.facts)]
    ends = tuple(100 * x for x in fov if 0 < x < 1)
    return [
        *shown,
        Distribution("Field of view", "lit pixels (%)", _groups(*lit), ends, "Accepted cubes."),
        Distribution("Highest reflectance", "reflectance (%)", _groups(*high), (100 * top,), "Accepted cubes."),
    ]


def _structures(gates: Gates, verdict: Verdict, real: SetFeatures, made: SetFeatures) -> list[Distribution]:
    said = {c.name: c for c in verdict.checks}
    shown = []
    for name in gates.limits.structures:
        if name not in made.spectra or name not in real.spectra:
            continue
        both = [np.exp(f.spectra[name].mean(1)) * 100 for f in (real, made)]
        shares = [100 * np.exp(f.extent[name]) for f in (real, made)]
        for part, values, unit in (("level", both, "mean reflectance (%)"), ("extent", shares, "share of pixels (%)")):
            check = said.get(f"{name}_{part}")
            note = (
                ""
                if check is None
                else f"{check.status}: divergence {number(check.value)}, limit {number(check.limit)}"
            )
            if all(np.isfinite(v).any() for v in values):
                shown.append(Distribution(f"{name}: {part}", unit, _groups(*values), (), note, log=True))
    return shown


def _diversity(gates: Gates, verdict: Verdict, real: Side, made: Side) -> list[Distribution]:
    if len(made.similarity) < 2:
        return []
    values = [m[np.triu_indices(len(m), 1)] for m in (real.similarity, made.similarity)]
    check = next((c for c in verdict.checks if c.name.startswith("ms_ssim")), None)
    note = "Dashed: the means. " + (
        f"{check.status}: their difference is {number(check.value)} over {check.n} cubes, limit {number(check.limit)}."
        if check is not None
        else "Too few cubes to hold the difference against a limit."
    )
    title = f"MS-SSIM of pairs ({gates.limits.ms_ssim_scales} scales)"
    return [Distribution(title, "MS-SSIM", _groups(*values), (), note, mean=True)]


def _alike(some: Tensor, similarity: np.ndarray) -> Pair | None:
    if len(similarity) < 2:
        return None
    a, b = np.unravel_index(int(np.argmax(similarity - np.eye(len(similarity)))), similarity.shape)
    note = f"The two most alike of {len(similarity)} synthetic cubes: MS-SSIM {similarity[a, b]:.2f}"
    return Pair(some[a].numpy(), some[b].numpy(), "synthetic", "synthetic", note)


def _pairs_note(gates: Gates, bank: Bank | None) -> str:
    limit = _limit(gates, bank)
    said = "Left the synthetic cube, right its nearest training cube. "
    said += f"Limit of the distance {limit:.3f}; " if limit is not None else "No limit (too few calibration patients); "
    said += "framed in red: rejected. The training cube is shown as it was stored, though it is also found flipped and "
    said += "shifted. Each band stretched."
    return said if bank is not None else f"{said} Pictures of training cubes need their cohort: give it with --real."


def _pair(gates: Gates, found: Neighbour, bank: Bank | None, rejected: dict[int, str]) -> Pair:
    limit = _limit(gates, bank)
    note = f"distance {found.distance:.3f}" + (f", limit {limit:.3f}" if limit is not None else "")
    reason = rejected.get(found.id)
    return Pair(
        found.cube,
        bank.picture(found.index) if bank is not None else None,
        f"synthetic, cube {found.id}",
        f"training: {bank.name(found.index)}" if bank is not None else f"training cube {found.index}",
        note + (f"; rejected: {reason}" if reason else ""),
        flagged=reason is not None,
    )


def _shards(manifest: Manifest) -> list[dict]:
    return [
        {
            "name": s.name,
            "count": s.count,
            "rejected": len(s.rejected),
            "own": str(s.verdict.status) if s.verdict is not None else "not judged",
            "status": str(s.status),
            "reason": s.verdict.reason if s.verdict is not None and str(s.verdict.status) != "pass" else "",
        }
        for s in manifest.shards
    ]
