"""What a file or folder holds, in words: `synthgen info`. Only files are looked at; no weights are loaded."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
from pydantic import Field

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.covariates import Covariate, covariates_of
from synthgen.cubes.cohort.hdf5 import attributes, open_hdf5, reading
from synthgen.cubes.readers.describe_numbers import calibration_of
from synthgen.cubes.readers.formats.envi import check_raw, raw_of, read_header
from synthgen.cubes.readers.formats.envi_files import header_of
from synthgen.cubes.readers.formats.hdf5_cubes import datasets, hdf5_wavelengths
from synthgen.cubes.readers.formats.matlab import list_matlab5, matlab5_wavelengths
from synthgen.cubes.readers.formats.numpy_files import list_npy, list_npz, npz_wavelengths
from synthgen.cubes.readers.formats.pictures import band_pictures, open_pictures
from synthgen.cubes.readers.formats.tiff import list_tiff
from synthgen.cubes.readers.open import FORMATS, open_source
from synthgen.cubes.readers.sniff import sniff
from synthgen.cubes.readers.source import Hints, Source, byte_order_of
from synthgen.cubes.units import Listed, in_nm
from synthgen.errors import InputError, SynthgenError, must_exist
from synthgen.runs.files import read_json

# The JSON that makes a folder what it is, looked for in this order.
_FOLDERS = {"config.json": "generator", "gates.json": "gates", "manifest.json": "shards", "config.yaml": "run"}
_MOST = 24  # entries of a list shown
_LONG = 400  # characters of a text shown


def describe(
    path: Annotated[str | os.PathLike, Field(description="cohort, source file, generator, gates or shard folder")],
) -> dict[str, Any]:
    """A plain dict (JSON-able) of what is at `path`, with the key `kind`.

    Cohort files: shape, wavelengths, patients, eyes, labels, masks, attributes, split and content hash. Other HDF5,
    MATLAB, NumPy, ENVI and TIFF files and folders of pictures: their arrays, byte order and wavelengths. Folders of the
    project: the main fields of their JSON. InputError for anything else.
    """
    path = must_exist(path, "any")
    found = _folder(path) if path.is_dir() else _file(path)
    if "arrays" in found:
        found |= calibration_of(path)
    return found


def _file(path: Path) -> dict[str, Any]:
    with reading(path):
        kind = sniff(path)
        if kind in ("hdf5", "matlab73"):
            return _hdf5(path, matlab=kind == "matlab73")
        if kind == "npy":
            return {"kind": "NumPy array", "path": str(path), "arrays": _arrays(list_npy(path))}
        if kind == "npz":
            return {"kind": "NumPy archive", "path": str(path), "arrays": _arrays(list_npz(path))} | _nm(
                npz_wavelengths(path), path
            )
        if kind == "matlab5":
            arrays = _arrays(list_matlab5(path))
            return {"kind": "MATLAB file", "path": str(path), "arrays": arrays} | _nm(matlab5_wavelengths(path), path)
        if kind == "tiff":
            return _tiff(path)
        if kind == "envi":
            return _envi(path)
        if kind is None and (header := header_of(path)) is not None:
            return _envi(header, path)
        if path.suffix == ".json":
            value = read_json(path)
            return {"kind": "JSON file", "path": str(path)} | (_main_fields(value) if isinstance(value, dict) else {})
        if kind not in (None, "picture"):
            return {"kind": f"{kind} file", "path": str(path)} | _source(open_source(path))
    raise InputError("is of no kind that can be described", path=path, expected=f"{FORMATS}, or a folder made here")


def render(description: dict[str, Any]) -> str:
    """A description as aligned lines of text."""
    lines: list[str] = []
    width = max(len(key) for key in description)
    for key, value in description.items():
        if isinstance(value, dict):
            lines.append(f"{key}:" if value else f"{key + ':':{width + 1}} none")
            inner = max((len(str(k)) for k in value), default=0)
            lines += [f"  {k!s:{inner}}  {_text(v)}" for k, v in value.items()]
        else:
            lines.append(f"{key + ':':{width + 1}} {_text(value)}")
    return "\n".join(lines)


def _hdf5(path: Path, matlab: bool) -> dict[str, Any]:
    with open_hdf5(path) as file:
        variables = {name: (item.shape, item.dtype) for name, item in datasets(file, path)}
        arrays, kept = _arrays(variables), attributes(file)
        is_cohort = {"cubes", "wavelengths_nm", "patient_id"} <= set(arrays)
    if not is_cohort:
        kind = "MATLAB v7.3 file, axes reversed" if matlab else "HDF5 file, not a cohort (`synthgen ingest` makes one)"
        return {"kind": kind, "path": str(path), "arrays": arrays, "attributes": kept} | _nm(
            hdf5_wavelengths(path), path
        )
    cohort = Cohort.open(path)
    found: dict[str, Any] = {
        "kind": "cohort",
        "path": str(path),
        "cubes": len(cohort),
        "bands": cohort.bands,
        "height": cohort.height,
        "width": cohort.width,
        "stored as": f"{arrays['cubes']}, reflectance 1 is {cohort.divisor:g}",
        "wavelengths_nm": list(cohort.wavelengths),
        "patients": len(cohort.patients),
        "first patients": list(cohort.patients[:6]),
        "eyes": _counts(cohort.eye),
        "visits": _counts(cohort.visit),
        "labels": _counts(cohort.label),
        "covariates": {name: _covariate(found) for name, found in covariates_of(cohort).items()},
        "masks": list(cohort.mask_names),
        "attributes": kept,
        **_ingest_steps(kept),
        "content_hash": cohort.content_hash,
    }
    try:
        cohort.check_finite()
    except InputError as error:
        found["problem"] = str(error)
    split = path.with_name(path.name + ".split.json")
    if split.exists():
        try:
            value = read_json(split)
            found["split"] = {part: len(value[part]) for part in ("train", "calibration", "test")}
            if value["cohort_hash"] != cohort.content_hash:
                found["problem"] = f"{split.name} was made for earlier contents; the next command extends it"
        except (SynthgenError, KeyError, TypeError):
            found["problem"] = f"{split.name} cannot be read"
    return found


def _ingest_steps(kept: dict[str, Any]) -> dict[str, Any]:
    """The steps of `synthgen ingest`, taken out of the attribute `ingest`: one line each."""
    try:
        made = json.loads(kept["ingest"])["steps"]
        steps = {
            f"{i} {step['step']}": {k: v for k, v in step.items() if k != "step"} for i, step in enumerate(made, 1)
        }
    except (KeyError, TypeError, ValueError):
        return {}
    del kept["ingest"]
    return {"ingest": {name: ", ".join(f"{k} {v}" for k, v in given.items()) for name, given in steps.items()}}


def _envi(header: Path, raw: Path | None = None) -> dict[str, Any]:
    fields = read_header(header)
    raw = raw if raw is not None else raw_of(header, fields)
    check_raw(raw, fields)
    return {
        "kind": f"{fields.dialect} image",
        "path": str(header),
        "raw file": str(raw),
        "arrays": {raw.name: _array(fields.shape, fields.dtype)},
        "interleave": f"{fields.interleave} ({', '.join(_AXES[axis] for axis in fields.axes)})",
        "byte order": byte_order_of(fields.dtype),
        "header offset": fields.offset,
        "bad bands": list(fields.bad_bands),
        **(_nm(fields.wavelengths, header) or {"wavelengths_nm": "absent"}),
        **({"notes": list(fields.notes)} if fields.notes else {}),
    }


_AXES = {"C": "bands", "H": "lines", "W": "samples"}


def _tiff(path: Path) -> dict[str, Any]:
    stacks, listed = list_tiff(path)
    where = "" if listed is None else listed.where
    dtype = next((dtype for _, dtype, _ in stacks.values()), None)
    return {
        "kind": "OME-TIFF file" if where.startswith("OME") else "TIFF file",
        "path": str(path),
        "arrays": {name: f"{_array(shape, kind)} {axes}" for name, (shape, kind, axes) in stacks.items()},
        "byte order": "unknown" if dtype is None else byte_order_of(dtype),
        **(_nm(listed, path) or {"wavelengths_nm": "absent", "wavelengths from": "none"}),
    }


def _pictures(path: Path) -> dict[str, Any]:
    try:
        source = open_pictures(path, Hints())
    except InputError as error:
        if error.what == "wavelengths absent":
            return {"kind": "folder of pictures", "path": str(path), "wavelengths_nm": "absent from the file names"}
        raise
    return {"kind": "folder of one picture per band", "path": str(path)} | _source(source)


def _source(source: Source) -> dict[str, Any]:
    return {
        "arrays": {source.variable: _array(source.layout.shape, source.dtype)},
        "byte order": source.byte_order,
        "wavelengths_nm": list(source.wavelengths),
        "wavelengths from": source.wavelengths_from,
        **({"notes": list(source.notes)} if source.notes else {}),
    }


def _folder(path: Path) -> dict[str, Any]:
    for name, kind in _FOLDERS.items():
        if not (path / name).exists():
            continue
        found: dict[str, Any] = {"kind": f"{kind} folder", "path": str(path)}
        if name.endswith(".json"):
            value = read_json(path / name)
            if not isinstance(value, dict):
                raise InputError("is not a table of keys and values", path=path / name, found=type(value).__name__)
            found |= _main_fields(value)
        found["files"] = {p.name: f"{p.stat().st_size} bytes" for p in sorted(path.iterdir())[:_MOST] if p.is_file()}
        return found
    if band_pictures([p for p in sorted(path.iterdir()) if p.is_file()]):
        return _pictures(path)
    expected = "one of " + ", ".join(_FOLDERS) + ", or one picture per band"
    raise InputError("is no folder of the project", path=path, expected=expected)


def _main_fields(value: dict[str, Any]) -> dict[str, Any]:
    """The fields of a JSON table; tables and long lists inside it by their size only."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            found[key] = {k: _short(v) for k, v in list(item.items())[:_MOST]}
        else:
            found[key] = _short(item)
    return found


def _short(value: Any) -> Any:
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict | list) for v in value)):
        return f"{len(value)} entries"
    return f"{len(value)} values" if isinstance(value, list) and len(value) > _MOST else value


def _counts(values: np.ndarray | None) -> dict[str, int] | str:
    """How often each value comes, or the range where there are many."""
    if values is None:
        return "unknown"
    if values.dtype.kind == "f":
        unknown = int(np.isnan(values).sum())
        known = values[~np.isnan(values)]
        if len(set(known.tolist())) > _MOST:
            return f"{known.min():g} to {known.max():g} in {len(known)} cubes, unknown in {unknown}"
        counts = Counter(f"{v:g}" for v in sorted(known.tolist()))
        return dict(counts) | ({"unknown": unknown} if unknown else {})
    counts = Counter(str(v) or "unknown" for v in sorted(values.tolist()))
    return dict(counts) if len(counts) <= _MOST else f"{len(counts)} different"


def _covariate(found: Covariate) -> str:
    """Range and unit of numbers, counts of texts; how many cubes have none."""
    known = found.values[found.known]
    if not len(known):
        return "unknown"
    if found.is_number:
        shown = f"{known.min():.4g} to {known.max():.4g} {found.unit}".strip()
    else:
        counts = _counts(known)
        shown = counts if isinstance(counts, str) else ", ".join(f"{k} ({n})" for k, n in counts.items())
    unknown = len(found.values) - len(known)
    return shown + (f", unknown in {unknown}" if unknown else "")


def _nm(listed: Listed | None, path: Path) -> dict[str, Any]:
    """The wavelengths of an external file in nm, in its own order, or why they cannot be taken; nothing without any."""
    if listed is None:
        return {}
    try:
        nm, where, notes = in_nm(listed, path)
    except InputError as error:
        given = {"wavelengths as given": listed.values.tolist(), "unit as given": listed.unit or "none"}
        return given | {"problem": str(error)}
    return {"wavelengths_nm": nm.tolist(), "wavelengths from": where} | ({"notes": list(notes)} if notes else {})


def _arrays(listed: dict[str, tuple[tuple[int, ...], np.dtype]]) -> dict[str, str]:
    return {name: _array(shape, dtype) for name, (shape, dtype) in listed.items()}


def _array(shape: tuple[int, ...], dtype: Any) -> str:
    kind = "text" if h5py.check_string_dtype(dtype) is not None else str(dtype)
    return f"{kind} [{', '.join(str(n) for n in shape)}]"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = ", ".join(_text(v) for v in value[:_MOST])
        return shown + (f", ... ({len(value)})" if len(value) > _MOST else "") or "none"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONG else text[:_LONG] + "..."
