"""The sources in a folder: each cube once, whatever number of files it consists of."""

from __future__ import annotations

import re
from pathlib import Path

from synthgen.cubes.sniff import is_envi_header, sniff
from synthgen.errors import InputError, must_exist

# A damaged file of such a name is a source all the same: it is refused with its reason rather than overlooked.
SUFFIXES = (".h5", ".hdf5", ".mat", ".npy", ".npz", ".hdr", ".tif", ".tiff")
PICTURE_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*nm", re.IGNORECASE)
_ANY_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LIKELY_NM = (200, 3000)  # what silicon and InGaAs cameras see: other numbers in a name count something else


def find_sources(folder: Path) -> list[Path]:
    """The sources in a folder, in order of name; each can be given to `open_source`.

    Cube files by their content (of an ENVI pair the header only), and sub-folders that hold one picture per band. The
    folder itself is the source when it is one picture per band. Hidden files are left out.

    InputError when there is nothing that can be read.
    """
    folder = must_exist(folder, "folder")
    files, folders = _entries(folder)
    cubes = cube_files(files)
    if not cubes and len(band_pictures(files)) > 1:
        return [folder]
    inside = {sub: band_pictures(_entries(sub)[0]) for sub in folders}
    inside = {sub: found for sub, found in inside.items() if len(found) > 1 and not cube_files(_entries(sub)[0])}
    named = [sub for sub, found in inside.items() if all(name_wavelength(p.name) for p in found)]
    # Pictures without a wavelength in their names may be masks or previews beside the cubes.
    sources = cubes + named or list(inside)
    if not sources:
        expected = "cube files (" + " ".join(SUFFIXES) + ") or one picture per band"
        raise InputError("holds no files that can be read", path=folder, expected=expected)
    return sorted(sources)


def cube_files(files: list[Path]) -> list[Path]:
    """Those of the files that hold whole cubes, an ENVI header for its raw file."""
    raw = {file for header in files if _is_header(header) for file in raw_candidates(header)}
    return [file for file in files if file not in raw and _holds_cubes(file)]


def band_pictures(files: list[Path]) -> list[Path]:
    """Those of the files that hold one plane only: a band of a cube that lies in a folder."""
    return [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES and _is_plane(file)]


def raw_candidates(header: Path) -> list[Path]:
    """Where the raw file of an ENVI header may lie: `a.img.hdr` beside `a.img`, `a.hdr` beside `a` or `a.img`."""
    stem = header.with_suffix("")
    return [stem, *(stem.with_suffix(s) for s in ENVI_SUFFIXES)] if stem.name else []


ENVI_SUFFIXES = (".raw", ".img", ".dat", ".bsq", ".bil", ".bip", ".bin", ".sli", ".cube")


def name_wavelength(name: str) -> float | None:
    """The wavelength in nm that a file name gives: the number before `nm`, else the only likely number in it."""
    stem = Path(name).stem
    marked = _NUMBER.findall(stem)
    numbers = [float(text) for text in (marked or _ANY_NUMBER.findall(stem))]
    likely = [n for n in numbers if _LIKELY_NM[0] <= n <= _LIKELY_NM[1]]
    return likely[-1] if likely and (marked or len(likely) == 1) else None


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    return [p for p in entries if p.is_file()], [p for p in entries if p.is_dir()]


def _is_header(path: Path) -> bool:
    if path.suffix.lower() != ".hdr":
        return False
    with open(path, "rb") as file:
        return is_envi_header(file.read(64))


def _holds_cubes(path: Path) -> bool:
    kind = sniff(path)
    if kind == "picture" or (kind == "tiff" and _is_plane(path)):
        return False
    return kind is not None or path.suffix.lower() in SUFFIXES


def _is_plane(path: Path) -> bool:
    kind = sniff(path)
    if kind != "tiff":
        return kind == "picture"
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return len(file.pages) == 1 and file.pages.first.samplesperpixel == 1 and file.pages.first.imagedepth == 1
    except Exception:  # a damaged file: refused, with its reason, when it is opened
        return False
