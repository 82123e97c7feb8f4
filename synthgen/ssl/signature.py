"""Safety test: how much of a weak smooth spectral difference the augmentations leave.

The reported amyloid signal is a smooth difference of about 1 % at 450-585 nm. An augmentation can destroy it in two
ways: it changes the difference itself (`kept`), or it teaches the network to ignore every difference of that kind,
because views of one cube differ more than that (`nuisance`, and `information` beside what eyes differ in anyway).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from pydantic import Field
from sklearn.covariance import ledoit_wolf

from synthgen.config import Config
from synthgen.ssl.augment import Augmentation, Augmenter
from synthgen.ssl.probe import mean_spectra


class Retained(Config):
    """What one augmentation leaves of a signature in the mean log-spectra of views."""

    kept: float = Field(description="share of the difference that is left between two views under equal random numbers")
    nuisance: float = Field(description="deviation along the signature between views of one cube; signature = 1")
    information: float = Field(
        description="share left of the squared separation s' (natural + nuisance covariance)^-1 s of two groups"
    )


def smooth_tilt(wavelengths: Sequence[float], amount: float = 0.01) -> np.ndarray:
    """Difference of log-reflectance [C]: amount * (nm / 450)^-4 up to 585 nm, nothing above."""
    nm = np.asarray(wavelengths, dtype=np.float64)
    return amount * (nm / 450.0) ** -4 * (nm <= 585)


def single_augmentations(config: Augmentation) -> dict[str, Augmentation]:
    """Each augmentation of `config` alone, and all together."""
    groups = {
        "crop, flip, rotation": ("scale_min", "scale_max", "aspect", "flip", "rotation"),
        "misregistration": ("misregistration",),
        "gain": ("gain_min", "gain_max"),
        "vignette": ("vignette",),
        "spectral jitter": ("spectral_jitter", "spectral_correlation_nm"),
        "wavelength shift": ("wavelength_shift",),
        "band dropout": ("dropout", "dropout_bands"),
        "noise": ("shot_noise", "read_noise"),
        "blur": ("blur", "blur_sigma"),
    }
    alone = {name: Augmentation.off(**{k: getattr(config, k) for k in keys}) for name, keys in groups.items()}
    return alone | {"all": config}


def signature_retained(
    cubes: np.ndarray,
    wavelengths: Sequence[float],
    config: Augmentation | None = None,
    signature: np.ndarray | None = None,
    draws: int = 8,
    seed: int = 0,
) -> dict[str, Retained]:
    """What each augmentation of `config`, alone and all together, leaves of a signature.

    Args:
        cubes: float32 [N, C, H, H] reflectance of different eyes, which give the natural covariance of mean spectra;
            a few dozen.
        signature: [C] difference of log-reflectance; `smooth_tilt(wavelengths)` where not given.
        draws: views per cube, at least 2.
    """
    config = config or Augmentation()
    s = smooth_tilt(wavelengths) if signature is None else np.asarray(signature, dtype=np.float64)
    marked = (cubes * np.exp(s)[None, :, None, None]).astype(np.float32)
    spectra = mean_spectra(cubes)
    natural = ledoit_wolf(spectra)[0]
    s = (mean_spectra(marked) - spectra).mean(0)  # as it shows: the floor of the logarithm takes a little in the blue
    out = {}
    for name, alone in single_augmentations(config).items():
        augmenter = Augmenter(alone, wavelengths, cubes.shape[-1])
        plain, other = (np.stack(_view_spectra(augmenter, c, draws, seed)) for c in (cubes, marked))
        kept = ((other - plain).mean((0, 1)) @ s) / (s @ s)
        spread = (plain - plain.mean(0)).reshape(-1, len(s))
        nuisance = spread.T @ spread / (len(spread) - len(cubes))
        out[name] = Retained(
            kept=float(kept),
            nuisance=float(np.sqrt(s @ nuisance @ s) / (s @ s)),
            information=float((s @ np.linalg.solve(natural + nuisance, s)) / (s @ np.linalg.solve(natural, s))),
        )
    return out


def retained_table(rows: Mapping[str, Retained]) -> str:
    """The outcome as text, one line per augmentation."""
    lines = [f"{'augmentation':<22}{'kept':>8}{'nuisance':>10}{'information':>13}"]
    lines += [f"{name:<22}{r.kept:>8.3f}{r.nuisance:>10.2f}{r.information:>13.3f}" for name, r in rows.items()]
    return "\n".join(lines)


def _view_spectra(augmenter: Augmenter, cubes: np.ndarray, draws: int, seed: int) -> list[np.ndarray]:
    """Mean log-spectra [N, C] of `draws` views; pixels outside the field of view are left out."""
    tensor, places = torch.from_numpy(np.ascontiguousarray(cubes, dtype=np.float32)), np.arange(len(cubes))
    return [
        mean_spectra(augmenter.views(tensor, seed, step, places, n_views=1)[0].numpy()) for step in range(draws)
    ]
