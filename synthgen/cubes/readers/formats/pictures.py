"""A folder of one picture per band: PNG, BMP and JPEG by Pillow, single-page TIFF by tifffile; 8 or 16 bit."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from synthgen.cubes.cohort.hdf5 import MAX_PACKING, in_one_line
from synthgen.cubes.readers.calibration import interpret
from synthgen.cubes.readers.declared import Declared
from synthgen.cubes.readers.formats.tiff import is_plane, plane_header, planes_of, read_plane, statements_of
from synthgen.cubes.readers.formats.tiff_declared import joined
from synthgen.cubes.readers.layout import Layout
from synthgen.cubes.readers.sniff import sniff
from synthgen.cubes.readers.source import Hints, Source, band_counts_of, check_size, native, resolve_wavelengths
from synthgen.cubes.units import Listed, counts, marked_length, per_band, plausible
from synthgen.errors import InputError, SynthgenError, must_exist

SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_MODES = {"L": "u1", "I;16": "u2", "I;16L": "u2", "I;16B": "u2", "I;16N": "u2", "I": "i4", "F": "f4"}


def open_pictures(folder: Path, hints: Hints) -> Source:
    """A folder of one picture per band as one cube.

    The wavelengths are the numbers in the file names (`eye_450nm.png`, `eye_0.45um.png`, `band_450.tif`); where some
    names are marked with a unit the other pictures are left out, and so are pictures of several bands (a preview in
    colour). Given wavelengths go to the pictures in order of name, numbers by their value.
    """
    folder = must_exist(folder, "folder")
    every = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    files = band_pictures(every)
    unmarked = [p for p in files if marked_length(p.stem) is None and _bands(p) > 1]
    if len(unmarked) < len(files):
        files = [p for p in files if p not in unmarked]
    if not files:
        remedy = "name a file, or a folder that holds one picture per band"
        raise InputError("holds no pictures of one band each", path=folder, expected=" ".join(SUFFIXES), remedy=remedy)
    chosen, found = picture_wavelengths([p.name for p in files])
    files = [files[k] for k in chosen]
    left = [p for p in every if p.suffix.lower() in SUFFIXES and p not in files]
    band_counts_of(folder, hints, found, None)
    first = _header(files[0])
    for path in files[1:]:
        if (header := _header(path)) != first:
            shown, wanted = (f"{dtype} {shape[0]}x{shape[1]}" for shape, dtype in (header, first))
            raise InputError("pictures of one cube differ", path=path, found=shown, expected=f"{wanted}, as the first")
    shape, dtype = first
    layout = Layout("CHW", (len(files), *shape), *shape)
    check_size(layout, folder)
    bands = resolve_wavelengths(folder, len(files), hints, found)

    declared = _declared(files, folder, dtype, bands.order)

    def read(i: int) -> np.ndarray:
        out = np.empty(layout.shape, dtype.newbyteorder("="))
        for k, path in enumerate(files):
            if _header(path) != first:
                raise InputError("the file has changed since it was opened", path=path)
            out[k] = _plane(path)
        return bands.sort(out)

    variable = f"{files[0].name} ... {files[-1].name}" if len(files) > 1 else files[0].name
    return Source(
        folder, "picture per band", variable, layout, dtype, bands.nm, bands.origin, declared, read,
        notes=bands.notes + _left_out(left), order=bands.order,
    )  # fmt: skip


def _declared(files: Sequence[Path], folder: Path, dtype: np.dtype, order: np.ndarray | None) -> Declared:
    """What TIFF pictures declare; in the 8-bit formats of pictures 255 is white, with 16 bits it may be 4095."""
    tiff = [sniff(path) == "tiff" for path in files]
    if not any(tiff) and dtype == np.uint8:
        return Declared(full_scale=255.0, full_scale_from="8-bit pictures, in which 255 is white")
    statements = [statements_of(path, 1) if is_tiff else [] for path, is_tiff in zip(files, tiff, strict=True)]
    return interpret(joined(statements, folder), folder, len(files), dtype, order)


def _left_out(pictures: Sequence[Path]) -> tuple[str, ...]:
    """What is stated of pictures beside the bands."""
    if not pictures:
        return ()
    listed = ", ".join(f"{p.name} ({n} bands)" if (n := _bands(p)) > 1 else p.name for p in pictures[:4])
    more = f" and {len(pictures) - 4} more" * (len(pictures) > 4)
    return (f"{pictures[0].parent.name}: left out as no band of the cube: {listed}{more}",)


def _bands(path: Path) -> int:
    """Bands or pages of a picture; 1 where it cannot be read, which is named when it is opened."""
    try:
        if sniff(path) == "tiff":
            return planes_of(path)
        with _damaged(path), Image.open(path, formats=["PNG", "BMP", "JPEG"]) as image:
            return 3 if image.mode == "P" else len(image.getbands())
    except InputError:
        return 1


def band_pictures(files: Sequence[Path]) -> list[Path]:
    """Those of the files that hold one plane only, in order of name with numbers by their value."""
    return sorted((file for file in files if file.suffix.lower() in SUFFIXES and is_picture(file)), key=_natural)


def is_picture(path: Path) -> bool:
    """Whether the file is a picture of one plane; a TIFF of several pages or bands is a cube."""
    try:
        kind = sniff(path)
    except InputError:
        return False
    return is_plane(path) if kind == "tiff" else kind == "picture"


def picture_wavelengths(names: Sequence[str]) -> tuple[list[int], Listed | None]:
    """Which of the pictures are bands, and their wavelengths where the names state them.

    They are what stands before a unit (nm, um), or else the only number that differs from name to name, if all can be
    nm and they do not just count.
    """
    stems = [Path(name).stem for name in names]
    marked = {k: found for k, stem in enumerate(stems) if (found := marked_length(stem)) is not None}
    if len(marked) > 1 or len(marked) == len(names):
        return list(marked), per_band([v for v, _ in marked.values()], [u for _, u in marked.values()], "file names")
    every = list(range(len(names)))
    columns = list(zip(*(map(float, _NUMBER.findall(stem)) for stem in stems), strict=False))
    if len({len(_NUMBER.findall(stem)) for stem in stems}) > 1:
        return every, None
    differing = [column for column in columns if len(set(column)) > 1 or len(names) == 1]
    if len(differing) == 1 and plausible(differing[0]) and not counts(sorted(differing[0])):
        return every, Listed(np.array(differing[0]), "file names", "nm")
    return every, None


def _natural(path: Path) -> tuple:
    """band_2 before band_10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts), path.name


def _header(path: Path) -> tuple[tuple[int, int], np.dtype]:
    """Rows and columns, and the type of the numbers."""
    if sniff(path) == "tiff":
        return plane_header(path)
    with _picture(path) as image:
        return (image.height, image.width), np.dtype(_MODES[image.mode])


def _plane(path: Path) -> np.ndarray:
    if sniff(path) == "tiff":
        return read_plane(path)
    with _picture(path) as image, _damaged(path):
        return native(np.array(image))


def _picture(path: Path) -> Image.Image:
    """The picture, its values not yet decoded."""
    with _damaged(path):
        image = Image.open(path, formats=["PNG", "BMP", "JPEG"])
        if image.mode not in _MODES:
            what, expected = "is no picture of one band", "grey, 8 or 16 bit"
            raise InputError(what, path=path, found=f"mode {image.mode}", expected=expected)
        if image.width * image.height > path.stat().st_size * MAX_PACKING:
            found = f"{image.height}x{image.width} in {path.stat().st_size} bytes"
            raise InputError("declares more data than the file holds", path=path, found=found)
        return image


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Pillow meets damaged files with errors of many classes; each becomes an InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except SynthgenError:
        raise
    except Exception as error:
        found = in_one_line(error).replace(str(path), "")
        raise InputError("picture cannot be read; it is damaged", path=path, found=found) from error
