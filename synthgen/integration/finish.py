"""What a finished pretraining leaves: the backbone, its summary, a warning when the features collapsed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from synthgen.contracts import Provenance
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.reflectance import BandStatistics
from synthgen.integration.artifacts import parts_of
from synthgen.integration.options import Pretraining
from synthgen.integration.pages.run import end_with_report
from synthgen.integration.supply.real import RealCubes
from synthgen.integration.supply.source import Supply
from synthgen.runs.files import read_json, write_json
from synthgen.runs.folder import RunFolder
from synthgen.runs.guard import OFTEN
from synthgen.science.backbone_file import CARD
from synthgen.ssl.backbone import save_backbone, standardise
from synthgen.ssl.evaluation.monitors import collapse_warning, feature_std
from synthgen.ssl.methods.base import Method


def never_forgotten(run: RunFolder, seen: Sequence[Mapping[str, Any]]) -> Provenance:
    """The last of the provenances that a run has had, with every part of the others; and of the backbone that it has
    left already, where a version wrote that which kept no record."""
    own = Provenance.model_validate(seen[-1])
    before = [Provenance.model_validate(part) for part in seen[:-1]]
    if (card := run.path / CARD).exists() and (there := read_json(card).get("provenance")):
        before.append(Provenance.model_validate(there))
    alone = lambda part: part.model_copy(update={"also": ()})
    known = [alone(part) for part in parts_of(own)]
    missing = [part for old in before for part in map(alone, parts_of(old)) if part not in known]
    return own.model_copy(update={"also": (*own.also, *dict.fromkeys(missing))})


@torch.no_grad()
def finish(
    config: Pretraining,
    run: RunFolder,
    method: Method,
    cohort: Cohort,
    statistics: BandStatistics,
    seen: Sequence[Mapping[str, Any]],
    supply: Supply,
    real: RealCubes,
    counts: Mapping[str, int],
) -> None:
    """Save the backbone and a summary; warn when the features have collapsed.

    Args:
        seen: every provenance that the run has had, the present one last: the backbone's names all their patients.
        counts: what was trained on, for the summary.
    """
    provenance = never_forgotten(run, seen)
    backbone = method.backbone.eval()
    some = np.array_split(np.arange(min(len(real), 256)), 16)  # few at a time: a cube of 672 pixels takes 29 MB
    features = torch.cat([backbone(standardise(real.draw(few)[0], statistics)) for few in some if len(few)])
    std = feature_std(features)
    warnings = {}
    if (collapsed := collapse_warning(features)) is not None:
        warnings["warning"] = collapsed
        print(f"warning: {warnings['warning']}", file=sys.stderr)
    if counts["skipped_steps"] > OFTEN * config.steps:
        warnings["left_out"] = f"{counts['skipped_steps']} of {config.steps} steps were left out, not being finite"
        remedy = "pretrain again, with --precision fp32 or, if it was that, a lower --learning-rate"
        print(f"warning: {warnings['left_out']}; {remedy}", file=sys.stderr)
    summary = {
        "method": config.method,
        "steps": config.steps,
        "synthetic_ratio": config.synthetic_ratio,
        "samples_seen_per_process": config.steps * config.batch_size,
        **counts,
        "gates": supply.stamp,
        "generator_hash": supply.generator_hash,
        "feature_std": float(std),
        **warnings,
    }
    save_backbone(
        backbone,
        run.path,
        config.backbone,
        cohort.wavelengths,
        cohort.height,
        statistics,
        provenance,
        summary,
    )
    write_json(run.path / "summary.json", summary)
    run.log(config.steps, feature_std_of_real_cubes=float(std), **warnings)
    end_with_report(run.path)
