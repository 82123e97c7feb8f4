"""Band centres in nm: reading them from text, comparing them, and resampling a cube from one set to another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthgen.cubes.units import given_nm, split_unit
from synthgen.errors import InputError, MismatchError

_FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))
MAX_BANDS = 100_000


def parse_bands(text: str) -> tuple[float, ...]:
    """Wavelengths in nm from `start:stop:step` (both ends included) or from a comma-separated list.

    "450:900:30" gives the 16 bands 450, 480, ..., 900; "0.45:0.9:0.03 um" the same. InputError when the text is
    neither, or does not increase; ConfigError where numbers without a unit are no plausible nm.
    """
    numbers, unit = split_unit(text)
    nm = given_nm(parse_list(numbers), unit)
    return checked(nm[::-1] if len(nm) > 1 and nm[0] > nm[-1] and unit is not None else nm)


def parse_list(text: str) -> tuple[float, ...]:
    """The numbers of `start:stop:step` or of a list; InputError for anything else."""
    expected = "start:stop:step (450:900:30) or a list (450,480,510), in nm or with a unit behind (0.45:0.9:0.03um)"
    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            if not (np.isfinite([start, stop, step]).all() and step != 0 and (stop - start) / step >= 0):
                raise ValueError
            steps = (stop - start) / step
            if steps >= MAX_BANDS:
                raise ValueError
            bands = tuple(float(b) for b in start + step * np.arange(int(np.floor(steps + 1e-6)) + 1))
        else:
            bands = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise InputError("wavelengths cannot be read", found=repr(text), expected=expected) from None
    if not bands:
        raise InputError("wavelengths absent", expected=expected)
    return bands


def checked(wavelengths: Sequence[float] | np.ndarray, path=None) -> tuple[float, ...]:
    """The wavelengths as a tuple of floats; InputError unless they are finite, positive and strictly increasing."""
    values = np.asarray(wavelengths, dtype=np.float64).ravel()
    if len(values) == 0:
        raise InputError("wavelengths absent", path=path, expected="one wavelength in nm per band")
    if not np.isfinite(values).all() or (values <= 0).any():
        raise InputError("wavelengths are not positive numbers", path=path, found=_brief(values), expected="nm, finite")
    if (np.diff(values) <= 0).any():
        at = int(np.argmax(np.diff(values) <= 0))
        raise InputError(
            "wavelengths do not increase",
            path=path,
            found=f"{values[at]:g} nm then {values[at + 1]:g} nm at band {at + 1}",
            expected="strictly increasing nm",
            remedy="sort the bands of the file by wavelength",
        )
    return tuple(float(v) for v in values)


def same_wavelengths(a: Sequence[float], b: Sequence[float], tolerance_nm: float = 0.5) -> bool:
    """Whether two sets of bands are the same: equal in number and each pair within `tolerance_nm`."""
    return len(a) == len(b) and bool(np.all(np.abs(np.subtract(a, b)) <= tolerance_nm))


def resampling_matrix(
    source_nm: Sequence[float], target_nm: Sequence[float], fwhm_nm: float | Sequence[float] | None = None
) -> np.ndarray:
    """Weights [T, S] by which T target bands are made of S source bands; each row sums to 1.

    A target band is a Gaussian of full width at half maximum `fwhm_nm` (default: the spacing of the target bands
    around it), sampled at the source wavelengths and normalised. Nearer than three standard deviations to an end of
    the source range the Gaussian is cut on both sides alike, so that a band narrows rather than moves: its stated
    wavelength stays true (one-sided, the band at 450 nm of a 450-900 nm camera would be centred at 460). Where the
    source is as coarse as the target band or coarser there is no shape to form, and the row interpolates linearly.

    Raises InputError when a target lies beyond the source range by more than half a source spacing.
    """
    source, target = np.asarray(checked(source_nm)), np.asarray(checked(target_nm))
    if len(source) == len(target) and np.array_equal(source, target):
        return np.eye(len(source))
    before, after = _end_spacings(source)
    low, high = source[0] - before / 2, source[-1] + after / 2
    outside = (target < low - 1e-9) | (target > high + 1e-9)
    if outside.any():
        raise InputError(
            "target bands lie outside the wavelengths of the source",
            found=f"source {source[0]:g}-{source[-1]:g} nm",
            expected=f"a source that covers {_brief(target[outside])} nm",
            remedy="choose target bands within the source range",
        )
    widths = _spacing_at(target, target) if fwhm_nm is None else np.broadcast_to(np.asarray(fwhm_nm), len(target))
    spacing = _spacing_at(source, target)
    weights = np.zeros((len(target), len(source)))
    for row, (centre, width, coarse) in enumerate(zip(target, widths, spacing, strict=True)):
        distance, sigma = np.abs(source - centre), width * _FWHM_TO_SIGMA
        reach = min(centre - low, high - centre) + 1e-9
        if reach >= 3 * sigma:
            reach = np.inf
        if coarse >= width * (1 - 1e-9) or not (distance <= reach).any():
            weights[row] = _interpolation(source, centre)
        else:
            weights[row] = np.exp(-0.5 * (distance / sigma) ** 2) * (distance <= reach)
    return weights / weights.sum(axis=1, keepdims=True)


def resample(
    cube: np.ndarray,
    source_nm: Sequence[float],
    target_nm: Sequence[float],
    fwhm_nm: float | Sequence[float] | None = None,
) -> np.ndarray:
    """Resample the bands of `cube` [..., S, H, W] to [..., T, H, W] by band shape (see `resampling_matrix`).

    Floating dtypes are kept, others become float32. MismatchError when S is not the number of source wavelengths.
    """
    if cube.shape[-3] != len(source_nm):
        raise MismatchError("wrong number of wavelengths for a cube", found=len(source_nm), expected=cube.shape[-3])
    matrix = resampling_matrix(source_nm, target_nm, fwhm_nm)
    kind = cube.dtype if cube.dtype.kind == "f" else np.dtype(np.float32)
    flat = cube.reshape(*cube.shape[:-2], -1)
    return np.matmul(matrix.astype(kind), flat.astype(kind, copy=False)).reshape(*cube.shape[:-3], -1, *cube.shape[-2:])


def _interpolation(source: np.ndarray, centre: float) -> np.ndarray:
    return np.array([np.interp(centre, source, unit) for unit in np.eye(len(source))])


def _end_spacings(source: np.ndarray) -> tuple[float, float]:
    if len(source) == 1:
        return 0.0, 0.0
    return float(source[1] - source[0]), float(source[-1] - source[-2])


def _spacing_at(bands: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Distance between the two bands that enclose each wavelength of `at` (the mean of both sides on a band)."""
    if len(bands) == 1:
        return np.zeros(len(at))
    gaps = np.diff(bands)
    right = np.clip(np.searchsorted(bands, at, side="right") - 1, 0, len(gaps) - 1)
    left = np.clip(np.searchsorted(bands, at, side="left") - 1, 0, len(gaps) - 1)
    return (gaps[left] + gaps[right]) / 2


def _brief(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:4])
    return shown + (f", ... ({len(values)} values)" if len(values) > 4 else "")
