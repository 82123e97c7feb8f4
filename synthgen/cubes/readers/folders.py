"""The sources in a folder: each cube once, whatever number of files it consists of."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from synthgen.cubes.readers.formats.envi import raw_of, read_header
from synthgen.cubes.readers.formats.envi_files import has_envi_mark, header_of, raw_candidates
from synthgen.cubes.readers.formats.pictures import SUFFIXES as PICTURES
from synthgen.cubes.readers.formats.pictures import band_pictures, picture_wavelengths
from synthgen.cubes.readers.formats.tiff import is_colour, is_plane
from synthgen.cubes.readers.sniff import sniff
from synthgen.errors import InputError, must_exist

# A damaged file of such a name is a source all the same: it is refused with its reason rather than overlooked.
SUFFIXES = (".h5", ".hdf5", ".mat", ".npy", ".npz", ".hdr", ".tif", ".tiff")
UNFINISHED = ".partial"  # end of the names of what is being written


def find_sources(folder: Path) -> list[Path]:
    """The sources in a folder, in order of name; each can be given to `open_source`.

    Cube files by their content (of an ENVI pair the header only), and sub-folders that hold one picture per band. The
    folder itself is the source when it is one picture per band. Hidden files are left out.

    InputError when there is nothing that can be read.
    """
    folder = must_exist(folder, "folder")
    files, folders = _entries(folder)
    cubes = cube_files(files)
    if not _beside_pictures(cubes, files) and len(band_pictures(files)) > 1:
        return [folder]
    inside = {sub: (_entries(sub)[0], band_pictures(_entries(sub)[0])) for sub in folders}
    inside = {
        sub: found
        for sub, (every, found) in inside.items()
        if len(found) > 1 and not _beside_pictures(cube_files(every), every)
    }
    named = [sub for sub, found in inside.items() if picture_wavelengths([p.name for p in found])[1] is not None]
    # Pictures without a wavelength in their names may be masks or previews beside the cubes.
    sources = cubes + named or list(inside)
    if not sources:
        expected = "cube files (" + " ".join(SUFFIXES) + ") or one picture per band"
        below = overlooked(folder, ())
        remedy = f"name the folder that holds them: {below[0]}" if below else None
        raise InputError("holds no files that can be read", path=folder, expected=expected, remedy=remedy)
    return sorted(sources)


def cube_files(files: list[Path]) -> list[Path]:
    """Those of the files that hold whole cubes, an ENVI header for its raw file."""
    headers = [file for file in files if file.suffix.lower() == ".hdr" and has_envi_mark(file)]
    raw = {file for header in headers for file in raw_candidates(header)}
    return [file for file in files if file not in raw and _holds_cubes(file)]


def _beside_pictures(cubes: list[Path], files: list[Path]) -> list[Path]:
    """Those of the cube files that keep a folder from being one of pictures: not its preview in colour."""
    return cubes if len(band_pictures(files)) < 2 else [file for file in cubes if not is_colour(file)]


def overlooked(folder: Path, found: Collection[Path], apart: Path | None = None) -> list[Path]:
    """The sub-folders that hold sources, at any depth, and are not among those `found`; the file `apart` is none."""
    left = [sub for sub in _entries(folder)[1] if sub not in found and not sub.name.endswith(UNFINISHED)]
    return [sub for sub in left if _holds_sources(sub, apart)]


def files_of(path: Path) -> list[Path]:
    """Every file that a source may be read from, the one that names it first: header and raw file, or all pictures.

    By names and the first bytes only: what a source is made of must be known of thousands before one is opened.
    """
    if path.is_dir():
        return [file for file in _entries(path)[0] if file.suffix.lower() in PICTURES]
    if has_envi_mark(path):
        return [path, *_raw_files(path)]
    header = header_beside(path)
    return [path] if header is None else [path, header]


def header_beside(path: Path) -> Path | None:
    """The ENVI header by which `open_source` reads this file, None where it needs none."""
    try:
        return header_of(path) if sniff(path) is None else None
    except InputError:  # absent, or not permitted to read
        return None


def data_file(path: Path) -> Path:
    """Where the numbers of a source are: of an ENVI header its raw file, where that is one."""
    raw = _raw_files(path) if has_envi_mark(path) else []
    if len(raw) < 2:
        return raw[0] if raw else path
    try:
        return raw_of(path, read_header(path))
    except InputError:
        return path


def _raw_files(header: Path) -> list[Path]:
    return [file for file in raw_candidates(header) if file != header and file.is_file()]


def _holds_sources(folder: Path, apart: Path | None) -> bool:
    for place, folders, _ in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and not name.endswith(UNFINISHED)]
        files = [file for file in _entries(Path(place))[0] if apart is None or not _same(file, apart)]
        pictures = [file.name for file in band_pictures(files)]
        if _beside_pictures(cube_files(files), files) or (
            len(pictures) > 1 and picture_wavelengths(pictures)[1] is not None
        ):
            return True
    return False


def _same(one: Path, other: Path) -> bool:
    return one.name == other.name and one.resolve() == other.resolve()


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
