"""Safety test: how much of a weak smooth spectral difference the augmentations leave.

The reported amyloid signal is a smooth difference of about 1 % at 450-585 nm. An augmentation can destroy it in two
ways: it changes the difference itself (`kept`), or it teaches the network to ignore every difference of that kind,
because views of one cube differ more than that (`nuisance`, and `information` beside what eyes differ in anyway). Where
the difference sits in a region, a crop can also leave that out (`shown`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from pydantic import Field
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from synthgen.config import Config
from synthgen.cubes.reflectance import LOG_FLOOR, log_reflectance
from synthgen.errors import InputError, MismatchError
from synthgen.science.signature import signature_law
from synthgen.ssl.augment.noise import BandNoise
from synthgen.ssl.augment.pipeline import Augmentation, Augmenter

KEPT, KEPT_ALL = 0.95, 0.85  # least fraction of the difference that is left: by each augmentation, by all together
INFORMATION, INFORMATION_ALL = 0.5, 0.4  # least fraction of the separation that is left: by each, by all together
SHOWN = 0.9  # least fraction of views that show the region
TILT = 0.01  # amplitude of the signature at 450 nm
PIXELS = 8  # a view with fewer pixels of the region, or beside it, does not show it
GEOMETRY = ("scale_min", "scale_max", "aspect", "flip", "rotation")


class Retained(Config):
    """What one augmentation leaves of a signature in the mean log-spectra of views."""

    kept: float = Field(
        description="fraction of the difference that is left between two views under equal random numbers"
    )
    nuisance: float = Field(
        description="standard deviation along the signature between views of one cube; signature = 1"
    )
    information: float = Field(
        description="fraction left of the squared separation s' (natural + nuisance covariance)^-1 s of two groups"
    )
    shown: float = Field(1.0, description="fraction of views in which the region of the signature is to be seen")


def single_augmentations(config: Augmentation) -> dict[str, Augmentation]:
    """Each augmentation of `config` alone, and all together."""
    groups = {
        "crop, flip, rotation": GEOMETRY,
        "misregistration": ("misregistration",),
        "gain": ("gain_min", "gain_max"),
        "vignette": ("vignette",),
        "spectral jitter": ("spectral_jitter", "spectral_correlation_nm"),
        "wavelength shift": ("wavelength_shift",),
        "band dropout": ("dropout", "dropout_bands"),
        "noise": ("noise", "shot_noise", "read_noise"),
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
    region: np.ndarray | None = None,
    noise: BandNoise | None = None,
) -> dict[str, Retained]:
    """What each augmentation of `config`, alone and all together, leaves of a signature.

    Args:
        cubes: float32 [N, C, H, H] reflectance of different eyes, which give the natural covariance of mean spectra;
            a few dozen.
        signature: [C] difference of log-reflectance; a tilt of 1 % where not given.
        draws: views per cube, at least 2.
        region: bool [N, H, H]: the signature is only there, and the spectra are those of the region against the rest of
            the field of view. Without it, the signature is everywhere.
        noise: of the camera, where the noise of `config` is the measured one.

    Raises MismatchError when the region does not fit the cubes, InputError when it is nowhere to be seen.
    """
    config = config or Augmentation()
    law = signature_law(wavelengths, TILT) if signature is None else np.asarray(signature, dtype=np.float64)
    tilt = torch.from_numpy(law)
    plain = torch.from_numpy(np.ascontiguousarray(cubes, dtype=np.float32))
    if region is not None and region.shape != (len(cubes), *cubes.shape[2:]):
        raise MismatchError("the region does not fit the cubes", found=region.shape, expected=cubes.shape)
    mask = None if region is None else torch.from_numpy(np.ascontiguousarray(region)).float()[:, None]
    where = torch.ones_like(plain[:, :1]) if mask is None else mask
    marked = plain * torch.exp(tilt.float()[:, None, None] * where)

    natural, shown = _spectra(plain, mask)
    if shown.sum() < 2:
        raise InputError("the region is nowhere to be seen", found=f"{int(shown.sum())} cubes", expected="two or more")
    covariance = ledoit_wolf(natural[shown])[0]
    s = (_spectra(marked, mask)[0] - natural)[shown].mean(0)  # the logarithm's floor takes a little in the blue
    places = np.arange(len(cubes))
    out = {}
    for name, alone in single_augmentations(config).items():
        augmenter = Augmenter(alone, wavelengths, cubes.shape[-1], noise)
        follower = _geometry(alone, augmenter)

        def views(of: Tensor, step: int, by: Augmenter = augmenter) -> Tensor:
            return by.views(of, seed, step, places, n_views=1)[0]

        found = []
        for step in range(draws):
            seen = None if mask is None else views(mask, step, follower)
            found.append((*_spectra(views(plain, step), seen), _spectra(views(marked, step), seen)[0]))
        before, there, after = (np.stack(part) for part in zip(*found, strict=True))  # [draws, N(, C)]
        out[name] = _retained(before, after, there, s, covariance)
    return out


def losses(rows: Mapping[str, Retained], regional: bool = False) -> list[str]:
    """In words, each augmentation that takes more of the signature than the limits of this module allow.

    The separation is limited in the whole field only (`regional` False): how much the difference between a region and
    the rest varies between eyes depends on the region, and so does what a view may add to that.
    """
    found = []
    for name, row in rows.items():
        kept, least = (KEPT_ALL, INFORMATION_ALL) if name == "all" else (KEPT, INFORMATION)
        checks = (
            ("of the difference kept", row.kept, kept),
            ("of the separation left", row.information, 0 if regional else least),
            ("of the views show the region", row.shown, SHOWN),
        )
        found += [f"{name}: {value:.3f} {what}, limit {limit}" for what, value, limit in checks if value < limit]
    return found


def _geometry(config: Augmentation, augmenter: Augmenter) -> Augmenter:
    """Moves a mask [N, 1, H, H] as `config` moves cubes: the numbers of the geometry do not depend on the bands."""
    alone = Augmentation.off(**{key: getattr(config, key) for key in GEOMETRY})
    return Augmenter(alone, augmenter.wavelengths[:1], augmenter.size)


def _retained(before: np.ndarray, after: np.ndarray, there: np.ndarray, s: np.ndarray, natural: np.ndarray) -> Retained:
    """From spectra of views [draws, N, C] without and with the signature, where `there` [draws, N] shows its region."""
    if not there.any():
        return Retained(kept=0, nuisance=0, information=0, shown=0)
    kept = ((after - before)[there].mean(0) @ s) / (s @ s)
    count = there.sum(0)
    several = count > 1  # cubes with two views at least
    weight = (there & several)[..., None].astype(float)
    mean = (before * weight).sum(0) / np.maximum(count, 1)[:, None]
    centred = ((before - mean) * weight).reshape(-1, len(s))
    nuisance = centred.T @ centred / max(weight.sum() - several.sum(), 1)
    return Retained(
        kept=float(kept),
        nuisance=float(np.sqrt(s @ nuisance @ s) / (s @ s)),
        information=float((s @ np.linalg.solve(natural + nuisance, s)) / (s @ np.linalg.solve(natural, s))),
        shown=float(there.mean()),
    )


def _spectra(cube: Tensor, region: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean log-reflectance [N, C] inside the field of view, or of a region less the rest; and which cubes show it."""
    logs = log_reflectance(cube)
    inside = (cube.mean(1, keepdim=True) > LOG_FLOOR).float()

    def mean(where: Tensor) -> tuple[Tensor, Tensor]:
        count = where.sum((1, 2, 3), dtype=torch.float64)
        return (logs * where).sum((2, 3), dtype=torch.float64) / count.clamp_min(1)[:, None], count >= PIXELS

    if region is None:
        spectra, shown = mean(inside)
        return spectra.numpy(), shown.numpy()
    # pixels that a warp has mixed of both belong to neither
    (first, shown), (second, beside) = mean(inside * (region > 0.99)), mean(inside * (region < 0.01))
    return (first - second).numpy(), (shown & beside).numpy()
