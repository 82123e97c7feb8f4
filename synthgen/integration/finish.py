"""What a finished pretraining leaves: the backbone, its summary, a warning when the features collapsed."""

from __future__ import annotations

import sys

import numpy as np
import torch

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import Split
from synthgen.cubes.reflectance import BandStatistics
from synthgen.integration.options import Pretraining
from synthgen.integration.pages.run import end_with_report
from synthgen.integration.supply.real import RealCubes
from synthgen.integration.supply.source import Supply
from synthgen.runs.files import write_json
from synthgen.runs.folder import RunFolder
from synthgen.ssl.backbone import save_backbone, standardise
from synthgen.ssl.evaluation.monitors import feature_std
from synthgen.ssl.methods.base import Method

COLLAPSED = 0.1  # feature_std is 1 for directions spread evenly and 0 when every cube has the same features


@torch.no_grad()
def finish(
    config: Pretraining,
    run: RunFolder,
    method: Method,
    cohort: Cohort,
    statistics: BandStatistics,
    split: Split,
    supply: Supply,
    real: RealCubes,
    seen_synthetic: int,
) -> None:
    """Save the backbone and a summary; warn when the features have collapsed."""
    backbone = method.backbone.eval()
    some = np.array_split(np.arange(min(len(real), 256)), 16)  # few at a time: a cube of 672 pixels takes 29 MB
    features = torch.cat([backbone(standardise(real.draw(few)[0], statistics)) for few in some if len(few)])
    spread = feature_std(features)
    told = {}
    if spread < COLLAPSED:
        told["warning"] = f"the features have collapsed (standard deviation {spread:.3f} of 1)"
        print(f"warning: {told['warning']}", file=sys.stderr)
    summary = {
        "method": config.method,
        "steps": config.steps,
        "synthetic_ratio": config.synthetic_ratio,
        "synthetic_seen_per_process": seen_synthetic,
        "samples_seen_per_process": config.steps * config.batch_size,
        "gates": supply.stamp,
        "generator_hash": supply.generator_hash,
        "feature_std": float(spread),
        **told,
    }
    save_backbone(
        backbone,
        run.path,
        config.backbone,
        cohort.wavelengths,
        cohort.height,
        statistics,
        cohort.provenance(split.train, also=supply.provenance),
        summary,
    )
    write_json(run.path / "summary.json", summary)
    run.log(config.steps, feature_std_of_real_cubes=float(spread), **told)
    end_with_report(run.path)
