"""Two views of cubes beside kornia's composition of the same list, timed in turn.

    python -m benchmarks.speed.augmentations

The list: resized crop, flip, rotation, spectral jitter with wavelength shift, blur (p 0.1), gain, vignette, noise, lost
bands (p 0.3), and with or without a sub-pixel shift of each band. kornia has no spectral jitter: its list gets the same
one matrix product that ours uses. Its noise is plain Gaussian, its gain and vignette are sums: all cheaper than ours.
Each of its compositions makes the two views in two calls and in one call on both stacked; its best time counts.
`SYNTHGEN_THREADS` sets the threads; with one thread on the CPU the clock is that of the process, which a busy machine
leaves alone.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import in_turn, record
from synthgen.runs.processes.device import set_threads
from synthgen.ssl.augment.pipeline import Augmentation, Augmenter
from synthgen.ssl.augment.spectral import mix_bands, shift_matrix, smooth_root

NM = tuple(float(w) for w in range(450, 901, 30))
BATCH = {"cpu": {64: 64, 224: 8}, "cuda": {64: 256, 224: 64}}  # as in a pretraining; a GPU wants to be full
ROUNDS = {"cpu": 15, "cuda": 51}
TARGET = {"plain": 3.0, "misregistered": 2.0}


class Spectral(nn.Module):
    """Spectral jitter and wavelength shift as one matrix per cube, drawn by torch."""

    def __init__(self, config: Augmentation):
        super().__init__()
        self.config, self.root = config, smooth_root(np.array(NM), config.spectral_correlation_nm)

    def forward(self, cube: Tensor) -> Tensor:
        n, bands = cube.shape[:2]
        curve = self.config.spectral_jitter * torch.randn(n, bands).numpy() @ self.root.T
        shift = shift_matrix(self.config.wavelength_shift * (2 * torch.rand(n).numpy() - 1), bands)
        return mix_bands(cube, torch.from_numpy((shift * np.exp(curve)[:, None]).astype(np.float32)).to(cube.device))


class EachBand(nn.Module):
    """A kornia augmentation of single-band images, drawn anew for each band."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, cube: Tensor) -> Tensor:
        n, bands, height, width = cube.shape
        return self.inner(cube.reshape(n * bands, 1, height, width)).view(n, bands, height, width)


def kornias(config: Augmentation, size: int, geometry: str) -> nn.Module:
    """kornia's composition. geometry: slice or resample (its two ways of cropping), or affine (crop and rotation as
    one affine map, which is less than the list asks for: the shape of the crop stays square)."""
    import kornia.augmentation as kornia

    scale, aspect = (config.scale_min, config.scale_max), (1 / config.aspect, config.aspect)
    if geometry == "affine":
        zoom = (1.0, config.scale_min**-0.5)
        first: list[nn.Module] = [
            kornia.RandomAffine(config.rotation, (0.18, 0.18), zoom, padding_mode="reflection", p=1.0)
        ]
    else:
        first = [
            kornia.RandomResizedCrop((size, size), scale, aspect, align_corners=False, cropping_mode=geometry),
            kornia.RandomRotation(config.rotation, align_corners=False, p=1.0),
        ]
    shift = config.misregistration / size
    between: list[nn.Module] = []
    if shift:
        one = kornia.RandomTranslate((0.0, shift), (0.0, shift), padding_mode="border", p=1.0)
        between.append(EachBand(one))
    return nn.Sequential(
        *first,
        kornia.RandomHorizontalFlip(p=config.flip),
        Spectral(config),
        *between,
        kornia.RandomGaussianBlur((5, 5), (0.3, config.blur_sigma), p=config.blur),
        kornia.RandomBrightness((config.gain_min, config.gain_max), clip_output=False, p=1.0),
        kornia.RandomGaussianIllumination((0.01, config.vignette), sign=(-1.0, -1.0), p=1.0),
        kornia.RandomGaussianNoise(std=1e-3, p=1.0),
        kornia.RandomChannelDropout(num_drop_channels=2, p=config.dropout),
    )


def compare(size: int, misregistration: float, device: torch.device, rounds: int) -> dict:
    """Seconds of two views of one batch: ours, and kornia's three compositions, in two calls and stacked in one."""
    config = Augmentation(misregistration=misregistration)
    cube = torch.rand(BATCH[device.type][size], len(NM), size, size, device=device) * 0.4
    augmenter, step = Augmenter(config, NM, size), iter(range(10**6))
    places = torch.arange(len(cube))

    def timed(work: Callable[[], list[Tensor]]) -> Callable[[], None]:
        def job() -> None:
            views = work()
            assert len(views) == 2 and all(v.shape == cube.shape for v in views)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return job

    jobs = {"ours": timed(lambda: augmenter.views(cube, 0, next(step), places))}
    for geometry in ("slice", "resample", "affine"):
        theirs = kornias(config, size, geometry)
        jobs[f"kornia, {geometry}"] = timed(lambda theirs=theirs: [theirs(cube), theirs(cube)])
        jobs[f"kornia, {geometry}, stacked"] = timed(lambda theirs=theirs: [*theirs(torch.cat([cube, cube])).chunk(2)])
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    with torch.no_grad():
        seconds = in_turn(jobs, rounds, time.process_time if alone else time.perf_counter)
    best = lambda *names: min(s for job, s in seconds.items() if job.startswith(tuple(f"kornia, {n}" for n in names)))
    return {
        "batch": len(cube),
        "ms": {name: round(1000 * s, 1) for name, s in seconds.items()},
        "views_per_second": round(2 * len(cube) / seconds["ours"], 1),
        "times_faster_than_kornia": round(best("slice", "resample") / seconds["ours"], 2),
        "times_faster_than_kornia_affine": round(best("affine") / seconds["ours"], 2),
    }


def measure(rounds: int | None = None) -> dict:
    """Both sizes, with and without misregistration, on the CPU and on a CUDA device if there is one.

    rounds: of each; by default more on a GPU.
    """
    threads = set_threads()
    found: dict = {"threads_used": threads, "load_before": round(os.getloadavg()[0], 1), "target_on_cpu": TARGET}
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for size in BATCH[device]:
            for name, pixels in (("plain", 0.0), ("misregistered", 0.5)):
                found[f"{device}, {size}, {name}"] = compare(
                    size, pixels, torch.device(device), rounds or ROUNDS[device]
                )
    found["load_after"] = round(os.getloadavg()[0], 1)
    return found


def run() -> None:
    """The full measurement, written into `results/augmentations.json`."""
    record("augmentations", measure())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, printed and not written")
    if parser.parse_args().quick:
        print(measure(rounds=1))
    else:
        run()


if __name__ == "__main__":
    main()
