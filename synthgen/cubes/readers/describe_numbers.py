"""What `synthgen info` shows of a file's numbers: what it declares, and what an ingest makes of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from synthgen.cubes.cohort.hdf5 import open_hdf5
from synthgen.cubes.readers.declarations import Statement
from synthgen.cubes.readers.formats.envi import read_header
from synthgen.cubes.readers.formats.envi_files import header_of
from synthgen.cubes.readers.formats.hdf5_cubes import datasets
from synthgen.cubes.readers.formats.hdf5_declared import hdf5_statements
from synthgen.cubes.readers.formats.matlab import list_matlab5, matlab5_statements
from synthgen.cubes.readers.formats.numpy_files import list_npz, npz_statements
from synthgen.cubes.readers.formats.tiff import list_tiff, statements_of
from synthgen.cubes.readers.open import open_source
from synthgen.cubes.readers.scaling import scale_in_words
from synthgen.cubes.readers.sniff import sniff
from synthgen.errors import InputError


def calibration_of(path: Path) -> dict[str, Any]:
    """Entries for a description. Of a file that cannot be opened as a source, for want of wavelengths, say, only what
    it declares.
    """
    try:
        source = open_source(path)
    except InputError as error:
        texts = [s.text() for s in _statements(path)]
        without = error.what == "wavelengths absent"
        return {"declared": texts or "nothing"} | ({} if without else {"problem": str(error)})
    declared = source.declared
    found: dict[str, Any] = {"declared": list(declared.statements) or "nothing"}
    if declared.applied:
        found["applied"] = "; ".join(declared.applied)
    if declared.not_applied:
        found["not applied"] = "; ".join(declared.not_applied)
    return found | {"reflectance 1 is": scale_in_words(source)}


def _statements(path: Path) -> list[Statement]:
    """What a file states of its largest array, whatever it is."""
    kind = None if path.is_dir() else sniff(path)
    if kind in ("hdf5", "matlab73"):
        with open_hdf5(path) as file:
            variables = {name: (item.shape, item.dtype) for name, item in datasets(file, path)}
            cube = _largest(variables)
            return hdf5_statements(file, cube, variables, path) if cube else []
    if kind == "matlab5":
        variables = list_matlab5(path)
        return matlab5_statements(path, cube, variables) if (cube := _largest(variables)) else []
    if kind == "npz":
        variables = list_npz(path)
        return npz_statements(path, cube, variables) if (cube := _largest(variables)) else []
    if kind == "tiff":
        stacks = list_tiff(path)[0].values()
        several = [n for shape, _, axes in stacks for n, axis in zip(shape, axes, strict=False) if axis not in "YX"]
        return statements_of(path, max([1, *several]))
    header = path if kind == "envi" else header_of(path) if kind is None and path.is_file() else None
    return list(read_header(header).statements) if header is not None else []


def _largest(variables: dict[str, tuple[tuple[int, ...], np.dtype]]) -> str | None:
    arrays = {n: np.prod(shape, dtype=float) for n, (shape, dtype) in variables.items() if len(shape) > 1}
    return max(arrays, key=lambda n: arrays[n]) if arrays else None
