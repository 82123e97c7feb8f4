"""What the gates say of reconstructions of unseen eyes, beside the eyes themselves, and why:
`python -m benchmarks.quality.reconstructions [--autoencoder RUN --name NAME]`.

No flow can be better than what its decoder makes of real eyes. Beside them stand their twins without the camera's noise
and without the shift between its bands, which tell whether the gates miss noise or structure. And each difference of a
structure's mean is taken apart: seen by the segmenter in either set, by the same segmentation in both, by true masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import oxygen_interval, record, subject
from synthgen.contracts import Status, Verdict
from synthgen.cubes.phantom import camera
from synthgen.cubes.phantom.simulate import WAVELENGTHS, simulate_cube
from synthgen.generator.networks.autoencoder import Autoencoder, base_field
from synthgen.generator.training.checkpoint import load_autoencoder
from synthgen.generator.training.fidelity import fidelity
from synthgen.generator.training.losses import psnr
from synthgen.integration.artifacts import PACKAGED
from synthgen.quality.features.handcrafted import filled_logs
from synthgen.quality.features.regions import REGIONS, Regions, regions_of
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.segmenter.segmenter import STRUCTURES
from synthgen.runs.processes.device import set_threads

SEED, PATIENTS, CHUNK = 77, 260, 32
TWINS = {"without noise": {"SHOT": 0.0, "READ": 0.0}, "without shifts between bands": {"SHIFT": 0.0}}


def measure(autoencoder: str = PACKAGED, name: str = "packaged", gates_name: str = PACKAGED) -> None:
    """Both eyes of 260 patients that no generator and no gates have seen."""
    set_threads()
    gates, model = load_gates(gates_name), load_autoencoder(autoencoder).model.eval()
    real, masks = eyes()
    sets = {"eyes": real} | {f"eyes {what}": _twins(changes) for what, changes in TWINS.items()}
    coded, smooth = (torch.cat(list(_remade(model, real, codes))) for codes in (True, False))
    sets |= {"reconstructions": coded, "reconstructions without quantisation": smooth}
    low, high = oxygen_interval(real.numpy(), coded.numpy(), masks, WAVELENGTHS)
    kept = fidelity(real.numpy(), coded.numpy(), masks, WAVELENGTHS)
    record(
        "reconstructions",
        {
            "what": name,
            "autoencoder": load_autoencoder(autoencoder).hash,
            "gates": gates.hash,
            "cubes": len(real),
            "verdicts": {name: in_short(gates.judge(cubes)[0]) for name, cubes in sets.items()},
            "psnr_db": round(float(psnr(real, coded)), 2),
            "kept": {key: round(value, 3) for key, value in kept.items()},
            "artery-vein ratio 600/570 kept": f"{kept['oxygen_contrast_kept']:.2f} [{low:.2f}, {high:.2f}]",
            "squared shift of means, in standard deviations": taken_apart(gates, real, coded, masks),
        },
    )


def eyes() -> tuple[Tensor, dict[str, np.ndarray]]:
    """Cubes [N, C, H, W] of unseen phantoms and their masks."""
    made = [simulate_cube(patient, eye, seed=SEED) for patient in range(PATIENTS) for eye in ("OD", "OS")]
    masks = {name: np.stack([one.masks[name] for one in made]) for name in made[0].masks}
    return torch.from_numpy(np.stack([one.cube for one in made])), masks


def _twins(changes: dict[str, float]) -> Tensor:
    """The same eyes by a camera with other constants."""
    with patch.multiple(camera, **changes):
        return eyes()[0]


@torch.no_grad()
def _remade(model: Autoencoder, cubes: Tensor, codes: bool) -> Iterator[Tensor]:
    """Encoded and decoded, with or without quantisation between."""
    for block in cubes.split(CHUNK):
        x = model.normalise(block)
        field = base_field(model.base(x), (x.shape[-2], x.shape[-1]))
        made = model(x, field).x if codes else model.decode_codes(model.code_vectors(x - field), field)
        yield model.denormalise(made.float())


def in_short(verdict: Verdict) -> dict[str, Any]:
    """Accepted, the joint Frechet ratio, and the checks that are not passed, each with value and limit."""
    ratio = next((c.value for c in verdict.checks if c.name == "joint_frechet_ratio"), None)
    bad = {
        check.name: [check.status.value, *(None if v is None else round(v, 2) for v in (check.value, check.limit))]
        for check in verdict.checks
        if check.status != Status.PASS
    }
    accepted = verdict.accepted / verdict.proposed
    return {"status": verdict.status.value, "accepted": round(accepted, 3), "joint": ratio, "not passed": bad}


def taken_apart(gates: Gates, real: Tensor, made: Tensor, masks: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """For each check of a structure's mean the squared shift from real to made: as the gates see it, under the
    segmentation of the real cubes for both, under true masks for both; and of the real cubes themselves when they are
    looked at under the segmentation of what was made of them."""
    segmenter = gates.instruments.segmenter
    assert segmenter is not None
    found, other = (torch.cat([segmenter.probabilities(b, WAVELENGTHS) for b in x.split(CHUNK)]) for x in (real, made))
    true = torch.from_numpy(np.stack([masks[name] for name in STRUCTURES], 1)).float()
    a, b = filled_logs(real), filled_logs(made)
    pairs = {
        "as the gates see it": (regions_of(a, found), regions_of(b, other)),
        "segmentation of the real for both": (regions_of(a, found), regions_of(b, found)),
        "true masks for both": (regions_of(a, true), regions_of(b, true)),
        "the real under the segmentation of the reconstruction": (regions_of(a, found), regions_of(a, other)),
    }
    return {how: _shifts(gates, *pair) for how, pair in pairs.items()}


def _shifts(gates: Gates, real: Regions, made: Regions) -> dict[str, float]:
    shifts = {}
    for kind, prints in (("spectrum", gates.lens.fingerprints), ("contrast", gates.lens.contrasts)):
        for name, fingerprint in prints.items():
            means = []
            for regions in (real, made):
                spectra = (regions.spectra if kind == "spectrum" else regions.contrast)[:, REGIONS.index(name)]
                there = spectra[~spectra.isnan().any(1)].double().numpy()
                means.append(fingerprint.whitened(there).mean(0))
            shifts[f"{name}_{kind}"] = round(float(np.square(means[1] - means[0]).sum()), 2)
    return shifts


if __name__ == "__main__":
    measure(*subject("--autoencoder", "an autoencoder, its run, or a generator", __doc__))
