"""The sources in a folder: each cube once, whatever number of files it consists of."""

from __future__ import annotations

from pathlib import Path

from synthgen.cubes.envi import has_envi_mark, raw_candidates
from synthgen.cubes.pictures import band_pictures, picture_wavelengths
from synthgen.cubes.sniff import sniff
from synthgen.cubes.tiff import is_plane
from synthgen.errors import InputError, must_exist

# A damaged file of such a name is a source all the same: it is refused with its reason rather than overlooked.
SUFFIXES = (".h5", ".hdf5", ".mat", ".npy", ".npz", ".hdr", ".tif", ".tiff")


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
    named = [sub for sub, found in inside.items() if picture_wavelengths([p.name for p in found])[1] is not None]
    # Pictures without a wavelength in their names may be masks or previews beside the cubes.
    sources = cubes + named or list(inside)
    if not sources:
        expected = "cube files (" + " ".join(SUFFIXES) + ") or one picture per band"
        raise InputError("holds no files that can be read", path=folder, expected=expected)
    return sorted(sources)


def cube_files(files: list[Path]) -> list[Path]:
    """Those of the files that hold whole cubes, an ENVI header for its raw file."""
    headers = [file for file in files if file.suffix.lower() == ".hdr" and has_envi_mark(file)]
    raw = {file for header in headers for file in raw_candidates(header)}
    return [file for file in files if file not in raw and _holds_cubes(file)]


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    return [p for p in entries if p.is_file()], [p for p in entries if p.is_dir()]


def _holds_cubes(path: Path) -> bool:
    try:
        kind = sniff(path)
    except InputError:  # not permitted to read: refused, with its reason, when it is opened
        return path.suffix.lower() in SUFFIXES
    if kind == "picture" or (kind == "tiff" and is_plane(path)):
        return False
    return kind is not None or path.suffix.lower() in SUFFIXES
