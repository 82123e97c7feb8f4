"""Dark and white correction: reflectance = (raw - dark) / (white - dark) * reflectance of the white target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthgen.cubes.readers import open_source
from synthgen.cubes.source import Hints
from synthgen.errors import ConfigError, InputError, MismatchError, must_exist

DIM = 0.02  # of the band's median: where white is less above dark, nothing can be said (outside the lit field)
_MOST_FRAMES = 64  # of one reference are averaged; more do not lower its noise to any purpose
_TEXT_BYTES = 1_000_000  # of a text file with one value per band


@dataclass(frozen=True)
class References:
    """dark and gain float32 [C, H, W], or [C, 1, 1] where there is one value per band; gain NaN where white is dim."""

    dark: np.ndarray
    gain: np.ndarray

    def dim(self, bands: np.ndarray | slice) -> np.ndarray:
        """Bool [H, W] (or [1, 1]): where white is too dim in some of the bands to say anything."""
        return np.asarray(np.isnan(self.gain[bands]).any(axis=0))

    def reflectance(self, raw: np.ndarray, path: Path) -> np.ndarray:
        """Raw cube [C, H, W] as reflectance, NaN where the references say nothing; MismatchError for other sizes."""
        for plane in (self.dark, self.gain):
            if any(have not in (1, wanted) for have, wanted in zip(plane.shape[1:], raw.shape[1:], strict=True)):
                found, expected = f"{raw.shape[1]}x{raw.shape[2]}", f"{plane.shape[1]}x{plane.shape[2]}"
                raise MismatchError(
                    "image size differs from that of the dark or white reference",
                    path=path,
                    found=found,
                    expected=expected,
                    remedy="give references of the same size, or one value per band",
                )
        if len(raw) != len(self.gain):
            raise MismatchError(
                "number of bands differs from that of the dark or white reference",
                path=path,
                found=len(raw),
                expected=len(self.gain),
            )
        return (raw.astype(np.float32) - self.dark) * self.gain


def read_references(dark: Path | None, white: Path | None, white_reflectance: float, hints: Hints) -> References | None:
    """The references of a recording, None where there are none.

    Args:
        dark, white: files of any kind that can be ingested (several cubes are averaged; one row or one column stands
            for all, as of a line scanner), or one value per band: `.npy` [C], or text with C numbers. Without `dark`
            it is zero.
        white_reflectance: of the target, 0-1: 0.99 for a usual white tile.
        hints: as for the cubes: variable, axes, wavelengths.

    Raises ConfigError for a dark reference without a white one, MismatchError when the two differ in bands or size,
    InputError when one cannot be read, or white is nowhere brighter than dark.
    """
    if white is None:
        if dark is not None:
            raise ConfigError("a dark reference needs a white one", found=dark, remedy="add --white FILE")
        return None
    bright = _reference(white, hints)
    black = np.zeros((len(bright), 1, 1), np.float32) if dark is None else _reference(dark, hints)
    sizes = list(zip(black.shape[1:], bright.shape[1:], strict=True))
    if len(black) != len(bright) or any(1 not in pair and pair[0] != pair[1] for pair in sizes):
        raise MismatchError(
            "dark and white reference do not belong together",
            path=white,
            found=f"[{', '.join(map(str, bright.shape))}]",
            expected=f"[{', '.join(map(str, black.shape))}] as {dark} has (bands, rows, columns)",
        )
    span = (bright - black).astype(np.float64)
    usual = np.array([np.median(band[band > 0]) if (band > 0).any() else 0.0 for band in span])
    if (usual <= 0).any():
        band = int(np.argmax(usual <= 0))
        raise InputError(
            "white reference is not brighter than dark",
            path=white,
            found=f"nowhere in band {band}",
            remedy="check both",
        )
    lit = span > DIM * usual[:, None, None]
    gain = np.where(lit, white_reflectance / np.where(lit, span, 1), np.nan)
    return References(black, gain.astype(np.float32))


def _reference(path: Path, hints: Hints) -> np.ndarray:
    """Mean of a reference's frames, float32 [C, H, W] or [C, 1, 1]; InputError when a value is not finite."""
    path = must_exist(path, "any")
    values = _one_per_band(path)
    if values is None:
        source = open_source(path, hints)
        count = min(source.layout.count, _MOST_FRAMES)
        total = np.zeros((source.layout.bands, source.layout.rows, source.layout.columns))
        for i in range(count):
            total += source.read(i)
        values = total / count
    if not np.isfinite(values).all():
        raise InputError("reference holds NaN or infinite values", path=path)
    return values.astype(np.float32)


def _one_per_band(path: Path) -> np.ndarray | None:
    """[C, 1, 1] from a vector in a .npy or a text file, None for anything else."""
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError):
            return None  # named by the reader
        return np.array(values, np.float64)[:, None, None] if values.ndim == 1 and values.dtype.kind in "uif" else None
    if path.suffix.lower() in (".txt", ".csv") and path.stat().st_size < _TEXT_BYTES:
        try:
            values = np.array(path.read_text().replace(",", " ").split(), dtype=np.float64)
        except ValueError:
            raise InputError("reference is not a list of numbers", path=path, expected="one number per band") from None
        if values.size:
            return values[:, None, None]
        raise InputError("reference is empty", path=path, expected="one number per band")
    return None
