"""Cubes in the formats that other programs write, each with its wavelengths: what the readers are tried on."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import tifffile
from PIL import Image
from spectral.io import envi

from synthgen.cubes.readers.source import native

_MATLAB = b"MATLAB 7.3 MAT-file, written by synthgen".ljust(124) + b"\0\2IM"
_CLASSES = {"f4": "single", "f8": "double", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64"}
_CLASSES |= {f"u{bytes}": f"u{name}" for bytes, name in (("1", "int8"), ("2", "int16"), ("4", "int32"), ("8", "int64"))}


def export_cube(path: Path, cube: np.ndarray, wavelengths: Sequence[float], format: str, **settings: str) -> Path:
    """Write a cube [C, H, W] of numbers, kept as they are, with its wavelengths in nm; the path that holds it.

    Args:
        path: what to write; for `envi` the header (`.hdr`), the raw file comes beside it as `.raw`; for `pictures` a
            folder of one PNG per band.
        format: envi, tiff, ome-tiff, matlab5, matlab7.3, hdf5, npy (which holds no wavelengths), npz or pictures.
        settings: interleave (bsq, bil, bip) and byte_order (little, big) of ENVI; byte_order and compression of TIFF.
    """
    path, cube, nm = Path(path), np.asarray(cube), tuple(float(n) for n in wavelengths)
    if format == "envi":
        _envi(path, cube, nm, **settings)
    elif format in ("tiff", "ome-tiff"):
        _tiff(path, cube, nm, ome=format == "ome-tiff", **settings)
    elif format == "npy":
        with open(path, "wb") as file:  # a path would be given a suffix
            np.save(file, cube, allow_pickle=False)
    elif format == "npz":
        with open(path, "wb") as file:
            np.savez(file, cube=cube, wavelengths_nm=np.array(nm))
    else:
        {"matlab5": _matlab5, "matlab7.3": _matlab73, "hdf5": _hdf5, "pictures": _pictures}[format](path, cube, nm)
    return path


def _envi(
    path: Path, cube: np.ndarray, nm: tuple[float, ...], interleave: str = "bsq", byte_order: str = "little"
) -> None:
    """By SPy, which insists on a suffix of its own: into a folder of its own, then under the name that is wanted."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        envi.save_image(
            f"{folder}/image.hdr",
            native(np.array(cube)).transpose(1, 2, 0),
            dtype=cube.dtype.newbyteorder("=").name,
            interleave=interleave,
            byteorder=byte_order,
            ext="raw",
            metadata={"wavelength": [repr(n) for n in nm], "wavelength units": "Nanometers"},
        )
        Path(folder, "image.raw").replace(path.with_suffix(".raw"))
        Path(folder, "image.hdr").replace(path)


def _tiff(
    path: Path,
    cube: np.ndarray,
    nm: tuple[float, ...],
    ome: bool,
    byte_order: str = "little",
    compression: str | None = None,
) -> None:
    channel = {
        "Name": [f"{n:g} nm" for n in nm],
        "EmissionWavelength": list(nm),
        "EmissionWavelengthUnit": ["nm"] * len(nm),
    }
    tifffile.imwrite(
        path,
        cube,
        byteorder="<" if byte_order == "little" else ">",
        photometric="minisblack",
        planarconfig=None,
        compression=compression,
        metadata={"axes": "CYX", "Channel": channel} if ome else {"axes": "CYX", "wavelengths_nm": list(nm)},
        ome=ome,
    )


def _matlab5(path: Path, cube: np.ndarray, nm: tuple[float, ...]) -> None:
    with open(path, "wb") as file:
        scipy.io.savemat(file, {"cube": native(np.array(cube)).transpose(1, 2, 0), "wavelengths": np.array(nm)})


def _matlab73(path: Path, cube: np.ndarray, nm: tuple[float, ...]) -> None:
    """HDF5 behind MATLAB's user block; MATLAB shows the axes of an HDF5 array reversed, here rows, columns, bands."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in {"cube": cube.transpose(0, 2, 1), "wavelengths": np.array([nm]).T}.items():
            file[name] = value
            file[name].attrs["MATLAB_class"] = np.bytes_(_CLASSES[value.dtype.newbyteorder("=").str[1:]])
    with open(path, "r+b") as file:
        file.write(_MATLAB)


def _hdf5(path: Path, cube: np.ndarray, nm: tuple[float, ...]) -> None:
    with h5py.File(path, "w") as file:
        file["cube"], file["wavelengths_nm"] = cube, np.array(nm)


def _pictures(folder: Path, cube: np.ndarray, nm: tuple[float, ...]) -> None:
    folder.mkdir()
    for n, plane in zip(nm, native(np.array(cube)), strict=True):
        Image.fromarray(plane).save(folder / f"band_{n:g}nm.png")
