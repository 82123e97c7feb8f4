"""Speed of the gates, each beside a peer or beside what it must keep up with: `python -m benchmarks.speed.gates`.

Two things are timed in turn in one run, so the ratio holds on a noisy machine. Per-cube gates: 1,000 cubes against a
bank of 10,000 training cubes, beside sampling and decoding the same number of cubes. Set gates: 2,000 rows. MS-SSIM:
500 pairs of 16 bands at 224 pixels, beside piq's plain call. The statistics of one feature space (Frechet and kernel
distance, coverage, Vendi score): beside torch-fidelity, prdc and vendi-score on the same features.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable

import numpy as np
import piq
import torch

from benchmarks.common import in_turn, record, with_detector
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.cubes.reflectance import BandStatistics
from synthgen.generator.config import AutoencoderConfig, FlowConfig
from synthgen.generator.flow import Flow
from synthgen.generator.generator import Generator
from synthgen.generator.networks.autoencoder import Autoencoder
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.per_cube.acceptance import AcceptanceCounts
from synthgen.quality.per_cube.validity import facts_of
from synthgen.quality.sets.pairwise_ms_ssim import image_range_of, to_images
from synthgen.quality.sets.statistics import Lens, Pair
from synthgen.quality.sets.table import Rows
from synthgen.runs.processes.device import pick_device, set_threads
from synthgen.science.ms_ssim import similarity_matrix

CUBES, BANK, ROWS = 1000, 10_000, 2000
STUDY_WIDTH, STEPS = 128, 8  # the smallest of the original study's networks at 224 pixels; evaluations a sample
EYES = 32  # at 224 for MS-SSIM: 496 pairs


def measure(device: str | None = None) -> dict:
    """Measure and record; seconds, and ratios of things timed in turn."""
    set_threads()
    on = pick_device(device)
    gates, generator = load_gates("phantom64"), Generator.load("phantom64", on)
    found = {
        "on": str(on),
        "per cube": per_cube(gates, generator, on),
        "per cube at 224": per_cube_at_224(gates, on),
        "per set": per_set(gates, on),
        "ms_ssim": pairs_at_224(on),
        **({"features": on_features()} if on.type == "cpu" else {}),
    }
    record("gates_speed", found)
    return found


def per_cube(gates: Gates, generator: Generator, device: torch.device) -> dict:
    """Milliseconds a cube: sampling and decoding, the per-cube gates, and the share of one in the other."""
    some = torch.from_numpy(np.stack([simulate_cube(p, "OD", 0, 64, seed=41).cube for p in range(BANK // 50)]))
    draw = torch.Generator().manual_seed(0)
    blocks = [  # a bank of distinct cubes: each eye mixed with another
        (some[torch.randperm(len(some), generator=draw)] * some).sqrt() for _ in range(BANK // len(some))
    ]
    bank = gates.memorization.with_bank(torch.cat(blocks))
    wide = with_detector(gates, bank)
    made = generator.decode(generator.sample(range(256), 0, 8, "heun"))
    queries = torch.cat([made] * (CUBES // len(made) + 1))[:CUBES]
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def sample(sampler: str) -> None:
        generator.decode(generator.sample(range(256), 0, 8, sampler))
        finish()

    seconds = in_turn(
        {"heun": lambda: sample("heun"), "ab2": lambda: sample("ab2"), "gates": lambda: (wide(queries), finish())}
    )
    each = {name: value / (CUBES if name == "gates" else 256) for name, value in seconds.items()}
    return {
        "milliseconds a cube": {
            "sampled (heun, 8 steps) and decoded": 1e3 * each["heun"],
            "sampled (ab2, 8 steps) and decoded": 1e3 * each["ab2"],
            "per-cube gates": 1e3 * each["gates"],
        },
        "bank": bank.count,
        "share of heun 8": each["gates"] / each["heun"],
        "share of ab2 8": each["gates"] / each["ab2"],
    }


def per_cube_at_224(gates: Gates, device: torch.device, count: int = 4) -> dict:
    """The same with the instruments of the packaged gates on cubes of 224 pixels, beside one sample of 8 evaluations by
    networks as large as the original study's smallest (8/8/128), whose weights are random: they take as long."""
    design = AutoencoderConfig(bands=16, size=224, compression=8, latent_channels=8, base_grid=4)
    coder = Autoencoder(design, BandStatistics((0.0,) * 16, (1.0,) * 16)).to(device).eval()
    shape = FlowConfig(
        channels=STUDY_WIDTH, multipliers=(1, 2, 4), latent_channels=8, latent_size=28, bands=16, base_grid=4
    )
    flow = Flow(shape).to(device).eval()
    state, t = torch.randn(count, shape.state_numbers, device=device), torch.full((count,), 0.5, device=device)
    codes, field = torch.randn(count, 8, 28, 28, device=device), torch.zeros(count, 16, 224, 224, device=device)
    eyes = [simulate_cube(p, "OD", 0, 224, seed=41).cube for p in range(count)]
    cubes, here = torch.from_numpy(np.stack(eyes)).to(device), gates.instruments.to(device)
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    @torch.no_grad()
    def sample() -> None:
        for _ in range(STEPS):
            flow(state, t)
        coder.decode_codes(codes, field)
        finish()

    @torch.no_grad()
    def judge() -> None:
        here.columns(cubes, gates.wavelengths, facts_of(cubes)[1])
        here.memorization.nearest(cubes)
        finish()

    seconds = in_turn({"sampling": sample, "gates": judge}, rounds=3)
    return {
        "milliseconds a cube": {name: 1e3 * value / count for name, value in seconds.items()},
        "share": seconds["gates"] / seconds["sampling"],
    }


def per_set(gates: Gates, device: torch.device) -> dict:
    """Seconds for a verdict on 2,000 rows, and for the MS-SSIM of its images."""
    held = gates.reference.take(np.resize(np.arange(len(gates.reference)), ROWS))
    rows = Rows(held.columns, np.arange(ROWS), gates.hash)
    acceptance = AcceptanceCounts(ROWS, ROWS, 0, scores=[1.0] * ROWS)
    images = torch.from_numpy(np.stack([simulate_cube(p, "OD", 0, 64, seed=41).cube for p in range(gates.images)]))
    similarity = gates.similarity(images.to(device))
    return {
        "rows": ROWS,
        "verdict": _timed(lambda: gates.certify(rows, acceptance, similarity), device),
        "similarity": _timed(lambda: gates.similarity(images.to(device)), device),
    }


def pairs_at_224(device: torch.device) -> dict:
    """All pairs of eyes at 224 pixels, 16 bands: ours and piq's plain call on each pair."""
    cubes = torch.from_numpy(np.stack([simulate_cube(p, "OD", 0, 224, seed=41).cube for p in range(EYES)])).to(device)
    images = to_images(cubes, image_range_of(cubes))
    i, j = torch.triu_indices(EYES, EYES, 1)
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        found["ours"] = similarity_matrix(images)[i, j]

    def theirs() -> None:
        step = 16
        parts = [
            piq.multi_scale_ssim(images[i[s : s + step]], images[j[s : s + step]], reduction="none")
            for s in range(0, len(i), step)
        ]
        found["piq"] = torch.cat(parts).cpu().numpy()

    a, b = _timed(ours, device), _timed(theirs, device)
    difference = float(np.abs(found["ours"] - found["piq"]).max())
    return {"pairs": len(i), "ours": a, "piq": b, "ratio": b / a, "largest difference": difference}


def on_features(n: int = 2000, d: int = 64) -> dict:
    """The statistics of one space of features [n, d]: ours beside the peers (the `bench` extra), seconds."""
    import prdc
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from vendi_score import vendi

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, n, d)) / np.sqrt(np.arange(1, d + 1))
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    lens, rows = Lens({}, {}, {"encoder": d}), [Rows.of({"encoder": s}) for s in (x, y)]

    def ours() -> None:
        Pair(lens, *rows, size=n)()

    def theirs() -> None:
        statistics = [fid_features_to_statistics(t) for t in (tx, ty)]
        fid_statistics_to_metric(*statistics, False)
        kid_features_to_metric(tx, ty, kid_subsets=1, kid_subset_size=n, verbose=False)
        with contextlib.redirect_stdout(io.StringIO()):
            prdc.compute_prdc(x, y, 5)
        for s in (x, y):
            vendi.score_dual(s, normalize=True)

    seconds = in_turn({"ours": ours, "theirs": theirs})
    return {"n": n, "d": d, **seconds, "ratio": seconds["theirs"] / seconds["ours"]}


def _timed(job: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    job()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(measure())
