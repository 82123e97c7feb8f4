"""Quality of the packaged generator on phantom patients that nothing has seen."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import oxygen_interval, record
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.generator.generator import PACKAGED as FOLDER
from synthgen.generator.generator import Generator
from synthgen.generator.model_card import write_quality
from synthgen.generator.training.fidelity import fidelity
from synthgen.generator.training.losses import psnr, spectral_angle
from synthgen.integration.artifacts import PACKAGED
from synthgen.integration.judging.judge import certify
from synthgen.integration.judging.reference import Bank, open_bank
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.sets.signature_retention import tilt_retained
from synthgen.runs.processes.device import set_threads

UNSEEN_SEED, UNSEEN_PATIENTS = 77, 260  # 520 cubes: authenticity wants 500 proposals
TRAINED_PATIENTS, TRAINED_SEED = 2048, 0  # the cohort of its recipe
TILTED = 40  # patients on whom a weak blue tilt is followed through encoding and decoding
SIDES = ("raw samples", "eyes never seen")


def packaged() -> None:
    """Verdict on 520 synthetic cubes; the same gates on as many fresh real ones; reconstruction of those."""
    set_threads()
    generator, gates = Generator.load(PACKAGED, "cpu"), load_gates(PACKAGED)
    with tempfile.TemporaryDirectory() as folder:
        fresh = simulate_cohort(Path(folder) / "fresh.h5", patients=UNSEEN_PATIENTS, size=64, seed=UNSEEN_SEED)
        real, masks = torch.from_numpy(fresh.cubes()), fresh.masks()
    synthetic = certify(generator, gates, count=len(real), seed=3, steps=8, sampler="ab2")
    control = gates.judge(real)[0]
    own = _own_copies(generator, gates, real)
    tokens = generator.encode(real)
    reconstructed = generator.decode(tokens)
    used = np.mean([np.unique(level).size for level in tokens.indices.transpose(0, 1).numpy()]) / generator.config.codes
    tilt = _tilt(generator, real[: 2 * TILTED], fresh.wavelengths, fresh.patient_id[: 2 * TILTED])
    remaking = {
        "psnr_db": round(float(psnr(real, reconstructed)), 2),
        "spectral_angle_deg": round(float(spectral_angle(real, reconstructed).mean()), 3),
        "codes_used": round(float(used), 3),
    }
    kept = fidelity(real.numpy(), reconstructed.numpy(), masks, fresh.wavelengths)
    low, high = oxygen_interval(real.numpy(), reconstructed.numpy(), masks, fresh.wavelengths)
    remaking |= {
        "error of the worst band over its own standard deviation": round(kept["worst_band_error"], 3),
        "contrast of the thinnest vessels kept": round(kept["thin_vessels_kept"], 3),
        "artery-vein ratio 600/570 kept": f"{kept['oxygen_contrast_kept']:.2f} [{low:.2f}, {high:.2f}]",
    }
    record(
        "packaged_quality",
        {
            "generator": generator.hash,
            "gates": gates.hash,
            "synthetic": synthetic.model_dump(mode="json"),
            "fresh_real": control.model_dump(mode="json"),
            "reconstruction": {**remaking, "tilt_retained": tilt},
            "near_its_own_training_eyes": own,
        },
    )
    note = f"{len(real)} synthetic cubes (ab2, 8 steps) beside {len(real)} phantoms of {UNSEEN_PATIENTS} patients that "
    note += "neither the generator nor the gates have seen; the figures are of reconstructions of these phantoms."
    tilts = {f"tilt of 1 % kept, {place}": share for place, share in tilt.items()}
    near = {f"copies of eyes it learned from, among {of}": own[of] for of in SIDES}
    write_quality(FOLDER / PACKAGED, synthetic, note, remaking | tilts | near)


def _own_copies(generator: Generator, gates: Gates, fresh: torch.Tensor) -> dict[str, Any]:
    """The gates' memorization detector with the generator's own training eyes as its bank, and their own limit: which
    fraction of raw samples lies below it, and of as many eyes of patients never seen."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = simulate_cohort(Path(folder) / "eyes.h5", TRAINED_PATIENTS, generator.size, TRAINED_SEED)
        train = load_or_make_split(cohort).train
        assert generator.provenance is not None and generator.provenance.seen(train) == sorted(train)
        bank = open_bank(gates, cohort)
    raw = generator.decode(generator.sample(range(len(fresh)), seed=3))
    found = {name: _share_below(bank, gates, cubes) for name, cubes in zip(SIDES, (raw, fresh), strict=True)}
    return {"training_eyes": len(bank.index), "alpha": gates.limits.authenticity.alpha, **found}


def _share_below(bank: Bank, gates: Gates, cubes: torch.Tensor) -> float:
    detector = bank.detector or gates.memorization
    limit = gates.limits.authenticity.limit if bank.limit is None else bank.limit
    assert limit is not None
    near = [detector.nearest(block).score < limit for block in cubes.split(64)]
    return round(float(torch.cat(near).float().mean()), 4)


def _tilt(generator: Generator, cubes: torch.Tensor, wavelengths, patients) -> dict[str, str]:
    """Fraction of a blue tilt of 1 % that encoding and decoding keep, whole image and left half, with its interval."""
    remake, found = (lambda x: generator.decode(generator.encode(x))), {}
    for place, half in (("whole image", False), ("left half", True)):
        rng = np.random.default_rng(0)
        kept = tilt_retained(remake, cubes, wavelengths, rng, left_half=half, patients=patients)
        found[place] = f"{kept.value:.3f} [{kept.low:.3f}, {kept.high:.3f}]"
    return found
