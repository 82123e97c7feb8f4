"""Writing a cube in the formats that other programs read, each with its wavelengths."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import tifffile
from PIL import Image
from spectral.io import envi

from synthgen.cubes.readers.source import native
from synthgen.cubes.wavelengths import checked
from synthgen.errors import InputError, MismatchError
from synthgen.runs.files import atomic, remove

_MATLAB = b"MATLAB 7.3 MAT-file, written by synthgen".ljust(124) + b"\0\2IM"
_CLASSES = {"f4": "single", "f8": "double", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64"}
_CLASSES |= {f"u{bytes}": f"u{name}" for bytes, name in (("1", "int8"), ("2", "int16"), ("4", "int32"), ("8", "int64"))}


def export_cube(
    path: str | os.PathLike,
    cube: np.ndarray,
    wavelengths: Sequence[float],
    format: str,
    *,
    interleave: str = "bsq",
    byte_order: str = "little",
    compression: str | None = None,
) -> Path:
    """Write a cube [C, H, W] of numbers, kept as they are, with its wavelengths in nm; the path that holds it.

    Args:
        path: what to write; for `envi` the header (`.hdr`), the raw file comes beside it as `.raw`; for `pictures` a
            folder of one PNG per band.
        format: envi, tiff, ome-tiff, matlab5, matlab7.3, hdf5, npy (which holds no wavelengths), npz or pictures.
        interleave: bsq, bil or bip, of ENVI.
        byte_order: little or big, of ENVI and TIFF.
        compression: of TIFF; a name that tifffile knows (`zlib`, `lzw`).

    The file appears whole or not at all. InputError for an unknown format, or a type that it cannot hold.
    """
    path, cube = Path(path), np.asarray(cube)
    nm = checked(wavelengths)
    if cube.ndim != 3 or cube.shape[0] != len(nm):
        raise MismatchError("wrong number of wavelengths for a cube", found=len(nm), expected=f"bands of {cube.shape}")
    if cube.dtype.kind not in "uif" or cube.size == 0:
        raise InputError("a cube of this type cannot be written", found=cube.dtype, expected="whole or real numbers")
    writers: dict[str, Callable[[Path], None]] = {
        "tiff": lambda at: _tiff(at, cube, nm, byte_order, compression, ome=False),
        "ome-tiff": lambda at: _tiff(at, cube, nm, byte_order, compression, ome=True),
        "matlab5": lambda at: _matlab5(at, cube, nm),
        "matlab7.3": lambda at: _matlab73(at, cube, nm),
        "hdf5": lambda at: _hdf5(at, cube, nm),
        "npy": lambda at: _numpy(at, lambda file: np.save(file, cube, allow_pickle=False)),
        "npz": lambda at: _numpy(at, lambda file: np.savez(file, cube=cube, wavelengths_nm=np.array(nm))),
        "pictures": lambda at: _pictures(at, cube, nm),
    }
    if byte_order not in ("little", "big") or interleave not in ("bsq", "bil", "bip"):
        found, expected = f"{interleave}, {byte_order}", "bsq, bil or bip, and little or big"
        raise InputError("unknown interleave or byte order", found=found, expected=expected)
    if format == "envi":
        return _envi(path, cube, nm, interleave, byte_order)
    if format not in writers:
        raise InputError("unknown format", found=repr(format), expected="envi, " + ", ".join(writers))
    with atomic(path) as temporary:
        writers[format](temporary)
    return path


def _envi(path: Path, cube: np.ndarray, nm: tuple[float, ...], interleave: str, byte_order: str) -> Path:
    """By SPy, into a folder of its own; then the raw file takes its place, and last the header that makes it one."""
    if path.suffix.lower() != ".hdr":
        raise InputError("an ENVI header must end in .hdr", path=path)
    metadata = {"wavelength": [repr(n) for n in nm], "wavelength units": "Nanometers"}
    with atomic(path) as header, atomic(path.with_suffix(".raw")) as raw:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                envi.save_image(
                    str(folder / "image.hdr"),
                    native(np.array(cube)).transpose(1, 2, 0),
                    dtype=cube.dtype.newbyteorder("=").name,
                    interleave=interleave,
                    byteorder=byte_order,
                    ext="raw",
                    metadata=metadata,
                )
            os.replace(folder / "image.raw", raw)
            os.replace(folder / "image.hdr", header)
        except envi.EnviDataTypeError as error:
            raise InputError("ENVI cannot hold this type", path=path, found=cube.dtype) from error
        finally:
            remove(folder)
    return path


def _tiff(
    path: Path, cube: np.ndarray, nm: tuple[float, ...], byte_order: str, compression: str | None, ome: bool
) -> None:
    channel = {
        "Name": [f"{n:g} nm" for n in nm],
        "EmissionWavelength": list(nm),
        "EmissionWavelengthUnit": ["nm"] * len(nm),
    }
    metadata = {"axes": "CYX", "Channel": channel} if ome else {"axes": "CYX", "wavelengths_nm": list(nm)}
    order = "<" if byte_order == "little" else ">"
    tifffile.imwrite(
        path,
        cube,
        byteorder=order,
        photometric="minisblack",
        planarconfig=None,
        compression=compression,
        metadata=metadata,
        ome=ome,
    )


def _matlab5(path: Path, cube: np.ndarray, nm: tuple[float, ...]) -> None:
    if cube.dtype == np.float16:
        raise InputError("MATLAB cannot hold this type", path=path, found=cube.dtype)
    with open(path, "wb") as file:
        scipy.io.savemat(file, {"cube": native(np.array(cube)).transpose(1, 2, 0), "wavelengths": np.array(nm)})


def _matlab73(path: Path, cube: np.ndarray, nm: tuple[float, ...]) -> None:
    """HDF5 behind MATLAB's user block; MATLAB shows the axes of an HDF5 array reversed, here rows, columns, bands."""
    if cube.dtype == np.float16:
        raise InputError("MATLAB cannot hold this type", path=path, found=cube.dtype)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in {"cube": cube.transpose(0, 2, 1), "wavelengths": np.array([nm]).T}.items():
            file[name] = value
            file[name].attrs["MATLAB_class"] = np.bytes_(_CLASSES[value.dtype.newbyteorder("=").str[1:]])
    with open(path, "r+b") as file:
        file.write(_MATLAB)


def _hdf5(path: Path, cube: np.ndarray, nm: tuple[float, ...]) -> None:
    with h5py.File(path, "w") as file:
        file["cube"], file["wavelengths_nm"] = cube, np.array(nm)


def _numpy(path: Path, save: Callable) -> None:
    with open(path, "wb") as file:
        save(file)


def _pictures(folder: Path, cube: np.ndarray, nm: tuple[float, ...]) -> None:
    if cube.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise InputError("PNG cannot hold this type", path=folder, found=cube.dtype, expected="uint8 or uint16")
    folder.mkdir()
    for n, plane in zip(nm, native(np.array(cube)), strict=True):
        Image.fromarray(plane).save(folder / f"band_{n:g}nm.png")
