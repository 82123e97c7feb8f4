"""What a verdict page shows, gathered from the gates, the cubes that were judged and the real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from synthgen.contracts import Manifest, Verdict
from synthgen.integration.judging.judge import Findings, Neighbour
from synthgen.integration.judging.reference import Bank
from synthgen.integration.judging.statistics import bands_of, strata_of, wasserstein_of
from synthgen.quality.features.regions import REGIONS
from synthgen.quality.gates import Gates
from synthgen.quality.per_cube.plausibility import GATES, REASONS
from synthgen.quality.per_cube.validity import facts_of
from synthgen.quality.sets.table import Rows
from synthgen.report.verdict_page import Distribution, Pair, VerdictContent
from synthgen.report.verdict_style import number
from synthgen.runs.randomness import numpy_stream

SHOWN = 400  # rows of each side behind the pictures; the verdict itself rests on all
COMPARED = 32  # cubes of another real cohort whose pairs give the distribution of MS-SSIM
_CHUNK = 64
_UNITS = {
    "spectra": "distance (1: 95 % of real cubes)",
    "physics": "worst contrast (above 0: wrong sign)",
    "density": "distance to the 5th nearest real cube",
}


class Side(NamedTuple):
    """What the page needs of real or synthetic cubes; distance [N] and scores [N] by gate, similarity [k, k]."""

    rows: Rows
    distance: np.ndarray
    scores: dict[str, np.ndarray]
    similarity: np.ndarray


@torch.no_grad()
def content_of(
    gates: Gates,
    verdict: Verdict,
    findings: Findings,
    *,
    title: str,
    bank: Bank | None = None,
    manifest: Manifest | None = None,
    notes: Sequence[str] = (),
) -> VerdictContent:
    """The content of the page on a set.

    Args:
        bank: real cubes to show beside them. Without it nearest training cubes cannot be pictured.
        manifest: of the shards, when shards were judged.
    """
    synthetic = _synthetic(findings)
    real, real_word = _real(gates, bank)
    images = [cube.numpy() for _, cube in findings.images]
    validity = gates.limits.validity
    names = [n for n in REGIONS if n in synthetic.rows.columns and n in real.rows.columns]
    return VerdictContent(
        title=title,
        verdict=verdict.model_dump(mode="json"),
        facts=_facts(gates, verdict, findings, real_word),
        wavelengths=gates.wavelengths,
        notes=[*notes, *([] if bank is None or bank.of_the_gates else [_OTHER_COHORT])],
        bands=bands_of(gates, verdict),
        cubes=_single(gates, real, synthetic, bank),
        envelope={"synthetic": _mean_spectra(images)} if images else {},
        envelope_limits=np.exp(np.array([validity.spectrum_low, validity.spectrum_high])),
        spectra={
            name: {
                "real": (real.rows[name], real.rows.patients),
                "synthetic": (synthetic.rows[name], np.arange(len(synthetic.rows))),
            }
            for name in names
        },
        spectra_note=f"Grey: {real_word}; colour: {len(synthetic.rows)} of the synthetic cubes. Line and dark band: "
        "geometric mean and its 95 % confidence at each wavelength by itself (of real cubes over patients); light "
        "band: the middle 90 % of the cubes. Below: difference of the means, with its confidence.",
        wasserstein=wasserstein_of(gates, findings.rows) if len(findings.rows) else {},
        structures=_structures(verdict, real.rows, synthetic.rows, names),
        pairs=[_pair(gates, n, bank, {r.id: r.reason for r in findings.rejected}) for n in findings.nearest],
        pairs_note=_pairs_note(gates, bank),
        diversity=_diversity(gates, verdict, real, synthetic),
        alike=_alike(images, synthetic.similarity),
        strata=strata_of(findings.acceptance),
        rejected=[(cube, f"cube {rejection.id}", rejection.reason) for rejection, cube in findings.shown],
        rejected_by=Counter(r.reason for r in findings.rejected),
        shards=_shards(manifest) if manifest is not None else (),
    )


_OTHER_COHORT = (
    "The real cohort is not the one that the gates were calibrated on (or it was split otherwise): distances on this "
    "page are to its training cubes. Near copies of these are rejected as well as those of the gates' training cubes."
)


def _synthetic(findings: Findings) -> Side:
    first = np.argsort(findings.rank, kind="stable")[:SHOWN]
    rows = findings.rows.take(first) if len(first) else findings.rows
    scores = {name: np.array(values) for name, values in findings.scores.items()}
    return Side(rows, np.array(findings.distance), scores, _matrix(findings.similarity))


def _real(gates: Gates, bank: Bank | None) -> tuple[Side, str]:
    """The real side, and what it is in words."""
    if bank is None or bank.of_the_gates:
        rows = gates.reference
        spectra = {name: torch.from_numpy(rows[name]) for name in REGIONS if name in rows.columns}
        judged = gates.instruments.plausibility.to("cpu").scores(spectra, torch.from_numpy(rows["encoder"]))
        scores = {name: judged[name].numpy() for name in GATES}
        words = f"{len(rows)} real cubes of {len(set(rows.patients.tolist()))} patients that nothing was fitted on"
        return Side(rows, rows["score"], scores, _matrix(gates.real_similarity)), words
    index = bank.unseen[numpy_stream(0, "real").permutation(len(bank.unseen))[:SHOWN]]
    blocks = [torch.from_numpy(bank.cohort.cubes(index[i : i + _CHUNK])) for i in range(0, len(index), _CHUNK)]
    judged = [gates(block) for block in blocks]
    patients = bank.cohort.patient_id[index]
    rows = Rows({**Rows.cat([gates.rows(a, everything=True) for a in judged]).columns}, patients, gates.hash)
    distance = torch.cat([bank.nearest(block).score.cpu() for block in blocks]).numpy()
    scores = {name: torch.cat([a.scores[name].cpu() for a in judged]).numpy() for name in GATES}
    apart = np.sort(np.unique(patients, return_index=True)[1])[:COMPARED]  # one cube of each patient
    similarity = gates.similarity(torch.cat(blocks)[torch.from_numpy(apart)]) if len(apart) > 1 else None
    words = f"{len(index)} cubes of {len(set(patients))} calibration and test patients of {bank.cohort.path.name}"
    return Side(rows, distance, scores, _matrix(similarity)), words


def _matrix(similarity: np.ndarray | None) -> np.ndarray:
    return np.zeros((0, 0)) if similarity is None else similarity


def _mean_spectra(cubes: Sequence[np.ndarray]) -> np.ndarray:
    """[N, C]: mean reflectance (geometric) of whole cubes, as the per-cube gates see it."""
    return np.exp(facts_of(torch.from_numpy(np.stack(cubes)))[0].spectrum.numpy())


def _facts(gates: Gates, verdict: Verdict, findings: Findings, real: str) -> list[tuple[str, str]]:
    read = len(findings.distance)
    before = verdict.proposed - read
    facts = [
        ("cubes judged", f"{read:,}" + (f" (and {before:,} rejected when they were written)" if before else "")),
        ("admitted one by one", f"{findings.acceptance.accepted:,}"),
        ("rejected", f"{len(findings.rejected):,}"),
        ("real side", real),
        ("gates", str(verdict.gates_hash)),
    ]
    if verdict.generator_hash is not None:
        facts.append(("generator", verdict.generator_hash))
    facts += [(f"embedding '{e.name}'", f"{e.dimension} numbers, {e.trained_on}; {e.hash}") for e in verdict.embeddings]
    return [*facts, ("authenticity", gates.limits.authenticity.note), ("structures", gates.limits.structures_note)]


def _limit(gates: Gates, bank: Bank | None) -> float | None:
    """The limit of the distances shown."""
    return gates.limits.authenticity.limit if bank is None or bank.of_the_gates else bank.limit


def _both(real: np.ndarray, synthetic: np.ndarray) -> dict[str, np.ndarray]:
    return {"real": real, "synthetic": synthetic}


def _single(gates: Gates, real: Side, synthetic: Side, bank: Bank | None) -> list[Distribution]:
    limit, plausible = _limit(gates, bank), gates.limits.plausible
    near = () if limit is None else (limit,)
    shown = [
        Distribution(
            "Distance to the nearest training cube",
            "distance (small: a copy)",
            _both(real.distance, synthetic.distance),
            near,
            "Below the limit a cube is taken for a copy. Every cube that was judged is counted, rejected ones too."
            if near
            else gates.limits.authenticity.note,
        )
    ]
    for name in GATES:
        ends = () if plausible.limits is None else (plausible.limits[name],)
        note = f"Beyond the limit: {REASONS[name]}." if ends else plausible.note
        shown.append(
            Distribution(name.capitalize(), _UNITS[name], _both(real.scores[name], synthetic.scores[name]), ends, note)
        )
    return shown


def _structures(verdict: Verdict, real: Rows, synthetic: Rows, names: Sequence[str]) -> list[Distribution]:
    by_name = {c.name: c for c in verdict.checks}
    shown = []
    for name in names:
        both = [np.exp(rows[name].mean(1)) * 100 for rows in (real, synthetic)]
        parts = [("level", both, "mean reflectance (%)")]
        if name != "background":
            fractions = [100 * np.exp(rows[f"{name}_extent"]) for rows in (real, synthetic)]
            parts.append(("extent", fractions, "fraction of the lit pixels (%)"))
        for part, values, unit in parts:
            check = by_name.get(f"{name}_{part}")
            note = (
                ""
                if check is None
                else f"{check.status}: divergence {number(check.value)}, limit {number(check.limit)}"
            )
            if all(np.isfinite(v).any() for v in values):
                shown.append(Distribution(f"{name}: {part}", unit, _both(*values), (), note, log=True))
    return shown


def _diversity(gates: Gates, verdict: Verdict, real: Side, synthetic: Side) -> list[Distribution]:
    if min(len(synthetic.similarity), len(real.similarity)) < 2:
        return []
    values = [m[np.triu_indices(len(m), 1)] for m in (real.similarity, synthetic.similarity)]
    check = next((c for c in verdict.checks if c.name.startswith("ms_ssim")), None)
    note = "Dashed: the means. " + (
        f"{check.status}: their difference is {number(check.value)}, limit {number(check.limit)}."
        if check is not None
        else "Too few cubes to hold the difference against a limit."
    )
    title = f"MS-SSIM of pairs ({gates.limits.ms_ssim_scales} scales)"
    return [Distribution(title, "MS-SSIM", _both(*values), (), note, mean=True)]


def _alike(images: Sequence[np.ndarray], similarity: np.ndarray) -> Pair | None:
    if len(similarity) < 2:
        return None
    a, b = np.unravel_index(int(np.argmax(similarity - np.eye(len(similarity)))), similarity.shape)
    note = f"The two most alike of {len(similarity)} synthetic cubes: MS-SSIM {similarity[a, b]:.2f}"
    return Pair(images[int(a)], images[int(b)], "synthetic", "synthetic", note)


def _pairs_note(gates: Gates, bank: Bank | None) -> str:
    limit = _limit(gates, bank)
    text = "Left the synthetic cube, right its nearest training cube, by the smaller of two detectors' distances. "
    text += f"Limit of the distance {limit:.3f}; " if limit is not None else "No limit (too few calibration patients); "
    text += "framed in red: rejected. The training cube is shown as it was stored, though it is also found flipped and "
    text += "shifted. Each band stretched."
    return text if bank is not None else f"{text} Pictures of training cubes need their cohort: give it with --real."


def _pair(gates: Gates, neighbour: Neighbour, bank: Bank | None, rejected: dict[int, str]) -> Pair:
    limit = _limit(gates, bank)
    note = f"distance {neighbour.distance:.3f}" + (f", limit {limit:.3f}" if limit is not None else "")
    note += f" (contrastive {neighbour.contrastive:.3f}, coarse spectra {neighbour.coarse:.3f})"
    reason = rejected.get(neighbour.id)
    return Pair(
        neighbour.cube,
        bank.picture(neighbour.index) if bank is not None else None,
        f"synthetic, cube {neighbour.id}",
        f"training: {bank.name(neighbour.index)}" if bank is not None else f"training cube {neighbour.index}",
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
