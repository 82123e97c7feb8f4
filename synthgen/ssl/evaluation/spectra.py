"""What a cube shows without its pixels' places: mean spectra, their standard deviation, the first harmonic."""

from __future__ import annotations

import numpy as np

from synthgen.cubes.floor import LOG_FLOOR


def mean_spectra(cubes: np.ndarray, fov: np.ndarray | None = None) -> np.ndarray:
    """Mean log-reflectance [N, C] of cubes [N, C, H, W] inside the field of view, bool [N, H, W].

    Where that is not given, it is the pixels that reflect more than the floor of the logarithm, averaged over the
    bands. A cube without any such pixel is averaged as a whole.
    """
    return np.stack([_logs(cube, None if fov is None else fov[i]).mean(1) for i, cube in enumerate(cubes)])


def spectral_features(cubes: np.ndarray) -> dict[str, np.ndarray]:
    """Of cubes [N, C, H, W]: `mean` [N, C] as `mean_spectra`, `std` [N, C] the standard deviation of the same
    pixels' log-reflectance, `phasor` [N, 4] mean and standard deviation of their `phasors`."""
    mean, std, harmonic = [], [], []
    for cube in cubes:
        logs = _logs(cube)
        mean.append(logs.mean(1))
        std.append(logs.std(1))
        points = phasors(_inside(cube, None))
        harmonic.append(np.concatenate([points.mean(1), points.std(1)]))
    return {"mean": np.stack(mean), "std": np.stack(std), "phasor": np.stack(harmonic)}


def phasors(spectra: np.ndarray) -> np.ndarray:
    """First harmonic [2, P] of spectra [C, P], real and imaginary part, over their sum (Fereidouni et al. 2012,
    equations 1 and 2; Opt Express 20:12729); 0 for a spectrum of zeros."""
    spectra = np.clip(spectra, 0, None).astype(np.float64)
    phase = 2 * np.pi * np.arange(len(spectra)) / len(spectra)
    total = spectra.sum(0)
    return np.stack([np.cos(phase), np.sin(phase)]) @ spectra / np.where(total > 0, total, 1)


def _logs(cube: np.ndarray, fov: np.ndarray | None = None) -> np.ndarray:
    return np.log(np.clip(_inside(cube, fov), 0, None).astype(np.float64) + LOG_FLOOR)


def _inside(cube: np.ndarray, fov: np.ndarray | None) -> np.ndarray:
    """The pixels [C, P] of a cube [C, H, W] in the field of view."""
    inside = fov if fov is not None else cube.mean(0) > LOG_FLOOR
    return cube[:, inside] if inside.any() else cube.reshape(len(cube), -1)
