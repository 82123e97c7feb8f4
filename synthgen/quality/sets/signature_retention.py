"""Tilt retained: how much of a weak smooth difference at short wavelengths survives encoding and decoding.

The amyloid signature that the literature reports is of this kind, it lies where a fundus is darkest, and a generator
can look good in every other figure and still erase it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from synthgen.cubes.reflectance import log_reflectance, reflectance
from synthgen.errors import InputError, MismatchError
from synthgen.quality.features.handcrafted import field_of_view
from synthgen.science.bootstrap import Array, middle, owners, patient_weights
from synthgen.science.signature import signature_law

_CHUNK = 32  # cubes encoded at once


@dataclass(frozen=True)
class TiltRetained:
    """cubes [N]: retained fraction of each. value: their mean, with its 95 % bootstrap interval over patients.

    1: kept whole. 0: erased, or replaced by what does not resemble it. Above 1: exaggerated; below 0: reversed.
    """

    cubes: Array
    value: float
    low: float
    high: float

    @staticmethod
    def of(shares: Array, owner: NDArray[np.int64], rng: np.random.Generator, repeats: int = 1000) -> TiltRetained:
        """From shares [N] of cubes whose patients are numbered owner [N]."""
        weights = patient_weights(owner, rng, repeats)
        return TiltRetained(shares, float(shares.mean()), *middle(weights @ shares / weights.sum(1)))


@torch.no_grad()
def tilt_retained(
    encode_decode: Callable[[Tensor], Tensor],
    cubes: Tensor,
    wavelengths_nm: Sequence[float],
    rng: np.random.Generator,
    *,
    amplitude: float = 0.01,
    left_half: bool = False,
    patients: ArrayLike | None = None,
    repeats: int = 1000,
) -> TiltRetained:
    """Decode each cube with and without an injected tilt; project the decoded difference on the injected one.

    The tilt is amplitude (nm/450)^-4 up to 585 nm, added to the log-reflectance inside the field of view. Retained is
    <decoded, injected> / <injected, injected> over the bands and pixels of a cube, differences of log-reflectance. It
    is paired: what encoding does to a cube in either case cancels. No unit.

    Args:
        encode_decode: cubes float32 [n, C, H, W] reflectance -> the same shape.
        cubes: float32 [N, C, H, W], reflectance in [0, 1]; values outside are clamped.
        wavelengths_nm: [C].
        amplitude: of log-reflectance at 450 nm, either sign; 0.01 is a tilt of 1 %.
        left_half: inject in the left half of the image only: a mean spectrum alone cannot carry that.
        patients: [N], the unit of the bootstrap; each cube its own if not given.

    Raises InputError: no cubes, no band up to 585 nm, no amplitude, a cube in which no tilt can be injected, a decoded
    cube that is not finite. MismatchError: wavelengths, patients or decoded shape do not fit.
    """
    if cubes.ndim != 4 or len(cubes) == 0:
        raise InputError("not cubes", found=f"shape {list(cubes.shape)}", expected="[N, C, H, W], N at least 1")
    if len(wavelengths_nm) != cubes.shape[1]:
        raise MismatchError("wavelengths of other bands", found=len(wavelengths_nm), expected=cubes.shape[1])
    tilt = signature_law(wavelengths_nm, amplitude)
    if not tilt.any():
        raise InputError("no tilt to inject", expected="an amplitude other than 0 and a band at 585 nm or below")
    owner = owners(patients, len(cubes))
    step = torch.as_tensor(tilt, dtype=cubes.dtype, device=cubes.device)[:, None, None]
    shares = torch.cat([_shares(encode_decode, block, step, left_half) for block in cubes.split(_CHUNK)])
    return TiltRetained.of(shares.cpu().numpy(), owner, rng, repeats)


def inject_tilt(cubes: Tensor, tilt: Tensor, left_half: bool = False) -> Tensor:
    """Cubes [N, C, H, W] in [0, 1] with `tilt` [C, 1, 1] added to their log-reflectance inside the field of view."""
    where = field_of_view(cubes)[:, None] & (tilt != 0)  # other bands are not even rounded
    if left_half:
        where[..., cubes.shape[-1] // 2 :] = False
    return torch.where(where, reflectance(log_reflectance(cubes) + tilt), cubes)


def _shares(encode_decode: Callable[[Tensor], Tensor], cubes: Tensor, tilt: Tensor, left_half: bool) -> Tensor:
    """Retained fraction of each cube: float64 [n]."""
    plain = cubes.clamp(0, 1)
    tilted = inject_tilt(plain, tilt, left_half)
    injected = _log_difference(tilted, plain)
    energy = injected.square().sum(1)
    if bool((energy == 0).any()):
        raise InputError("a tilt cannot be injected into a cube", found="all of it dark or saturated at 450-585 nm")
    decoded = [encode_decode(c) for c in (tilted, plain)]
    if any(d.shape != cubes.shape for d in decoded):
        raise MismatchError("decoded cubes of another shape", found=list(decoded[0].shape), expected=list(cubes.shape))
    share = (_log_difference(*decoded) * injected).sum(1) / energy
    if not bool(torch.isfinite(share).all()):
        raise InputError("a decoded cube holds NaN or infinite values")
    return share


def _log_difference(x: Tensor, y: Tensor) -> Tensor:
    """[n, C H W]: float64, because a hundredth of a per cent is lost between float32 logarithms."""
    return (log_reflectance(x.double()) - log_reflectance(y.double())).flatten(1)
