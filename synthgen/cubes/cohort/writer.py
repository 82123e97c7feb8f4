"""Writing a cohort file cube by cube, atomically and in bounded memory."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from synthgen.cubes.wavelengths import checked
from synthgen.errors import InputError, MismatchError
from synthgen.runs.files import atomic, json_text

FULL_SCALE = 65535  # uint16: steps of 1.5e-5, a thirtieth of LOG_FLOOR


class CohortWriter:
    """Context manager that writes the cohort layout (see `cohort`); the file appears, whole, when the block ends well.

    Reflectance is clipped to [0, 1] and stored as uint16. On an error, Ctrl-C, or a full disk (StorageError) nothing is
    left behind and an older file of the same name stays.

    Args:
        path: the file to make; its folder is made too.
        wavelengths: [C] in nm, increasing.
        height, width: of every cube, in pixels.
        attributes: numbers and texts to keep with the file (other values are kept as JSON).
        field_attributes: likewise with the fields of these names: `{"age": {"units": "years"}}` (see `covariates`).
        compress: shuffle and deflate the cubes (about half the size, five times slower to read).
    """

    def __init__(
        self,
        path: str | os.PathLike,
        wavelengths: tuple[float, ...],
        height: int,
        width: int,
        *,
        attributes: Mapping[str, Any] | None = None,
        field_attributes: Mapping[str, Mapping[str, Any]] | None = None,
        compress: bool = False,
    ):
        self.path = Path(path)
        self.wavelengths = checked(wavelengths)
        self.shape = (len(self.wavelengths), int(height), int(width))
        self.attributes = dict(attributes or {})
        self.field_attributes = dict(field_attributes or {})
        self._packing = {"compression": "gzip", "compression_opts": 2, "shuffle": True} if compress else {}
        self._planes: dict[str, h5py.Dataset] = {}
        self._rows: list[tuple[str, str, int, float]] = []
        self._fields: dict[str, dict[int, float | str]] = {}
        self._stack = contextlib.ExitStack()
        self._file: h5py.File | None = None

    def __enter__(self) -> CohortWriter:
        if self.path.is_dir():
            raise InputError("is a folder", path=self.path, expected="a file to write")
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic(self.path))
            self._sink = stack.enter_context(_Sink(temporary, "w+"))
            stack.callback(self._sink.check)  # after HDF5 has closed its file and before that is given its name
            self._file = stack.enter_context(h5py.File(self._sink, "w"))
            stack.push(self._sink.give_up)
            self._cubes = self._file.create_dataset(
                "cubes", (0, *self.shape), "<u2", maxshape=(None, *self.shape), chunks=(1, *self.shape), **self._packing
            )
            self._cubes.attrs["scale"] = 1 / FULL_SCALE
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, traceback) -> bool | None:
        if kind is not None:
            return self._stack.__exit__(kind, error, traceback)
        with self._stack:
            self._finish()
        return None

    def __len__(self) -> int:
        return len(self._rows)

    def append(
        self,
        cube: np.ndarray,
        patient_id: str,
        *,
        eye: str | None = None,
        visit: int | None = None,
        label: float | None = None,
        masks: Mapping[str, np.ndarray] | None = None,
        fields: Mapping[str, float | str] | None = None,
    ) -> None:
        """Add one cube [C, H, W] of a patient; masks are bool [H, W]; fields are whatever else is known (age, camera).

        A mask that other cubes have and this one lacks is empty (the field of view is then the whole frame). InputError
        when a value is not finite; MismatchError when a shape differs.
        """
        n, cube = len(self._rows), np.asarray(cube)
        if cube.shape == self.shape and not np.isfinite(cube).all():
            band = int(np.argmax(~np.isfinite(cube).all(axis=(1, 2))))
            raise InputError(f"cube {n} holds NaN or infinite values", path=self.path, found=f"first in band {band}")
        self.append_stored(quantised(cube), patient_id, eye=eye, visit=visit, label=label, masks=masks, fields=fields)

    def append_stored(
        self,
        stored: np.ndarray,
        patient_id: str,
        *,
        eye: str | None = None,
        visit: int | None = None,
        label: float | None = None,
        masks: Mapping[str, np.ndarray] | None = None,
        fields: Mapping[str, float | str] | None = None,
    ) -> None:
        """Add one cube uint16 [C, H, W] as `quantised` makes it; else as `append`."""
        if self._file is None:
            raise RuntimeError("append outside of the `with` block")
        n = len(self._rows)
        if stored.shape != self.shape:
            raise MismatchError(
                f"cube {n} has the wrong shape", path=self.path, found=stored.shape, expected=self.shape
            )
        patient_id = str(patient_id)
        if not patient_id.strip() or "\0" in patient_id:
            raise InputError(f"cube {n} has no patient", path=self.path, found=repr(patient_id))
        self._cubes.resize(n + 1, axis=0)
        self._cubes[n] = stored
        for name, mask in (masks or {}).items():
            mask = np.asarray(mask)
            if mask.shape != self.shape[1:]:
                raise MismatchError(f"mask '{name}' has the wrong shape", found=mask.shape, expected=self.shape[1:])
            plane = self._plane(name)
            plane.resize(n + 1, axis=0)
            plane[n] = mask.astype(bool)
        for name, value in (fields or {}).items():
            self._fields.setdefault(name, {})[n] = value
        self._sink.check()  # a full disk ends the work now rather than after the last cube
        self._rows.append((patient_id, eye or "", -1 if visit is None else int(visit), _number(label)))
        self._sink.check()

    def _plane(self, name: str) -> h5py.Dataset:
        if name not in self._planes:
            assert self._file is not None
            self._planes[name] = self._file.create_dataset(
                f"masks/{name}",
                (0, *self.shape[1:]),
                bool,
                maxshape=(None, *self.shape[1:]),
                chunks=(1, *self.shape[1:]),
                fillvalue=name == "fov",  # also the planes skipped by cubes without this mask
                compression="gzip",
                compression_opts=1,
            )
        return self._planes[name]

    def _finish(self) -> None:
        if not self._rows:
            raise InputError("no cubes to write", path=self.path)
        file, n = self._file, len(self._rows)
        assert file is not None
        patients, eyes, visits, labels = zip(*self._rows, strict=True)
        file.create_dataset("wavelengths_nm", data=np.asarray(self.wavelengths, dtype=np.float64))
        file.create_dataset("patient_id", data=_fixed_text(patients))
        if any(eyes):
            file.create_dataset("eye", data=_fixed_text(eyes))
        if max(visits) >= 0:
            file.create_dataset("visit", data=np.array(visits, dtype=np.int64))
        if not np.isnan(labels).all():
            file.create_dataset("label", data=np.array(labels, dtype=np.float64))
        for name, known in self._fields.items():
            texts = any(isinstance(value, str) for value in known.values())
            values = [known.get(i, "" if texts else float("nan")) for i in range(n)]
            data = _fixed_text([str(v) for v in values]) if texts else np.array(values, float)
            _keep(file.create_dataset(name, data=data), self.field_attributes.get(name, {}))
        for plane in self._planes.values():
            plane.resize(n, axis=0)
        _keep(file, self.attributes)


def _keep(item: h5py.File | h5py.Dataset, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        plain = isinstance(value, str | int | float)
        value = value if plain else json_text(value)
        if isinstance(value, str):
            item.attrs.create(name, _fixed_text([value]))
        else:
            item.attrs[name] = value


def quantised(cube: np.ndarray) -> np.ndarray:
    """Reflectance clipped to [0, 1], in 65535 steps, uint16."""
    return np.rint(np.clip(cube, 0, 1).astype(np.float32) * FULL_SCALE).astype(np.uint16)


def _number(label: float | None) -> float:
    return float("nan") if label is None else float(label)


def _fixed_text(values: Sequence[str]) -> np.ndarray:
    """Texts of fixed length: they lie in the dataset itself, not in an HDF5 heap, whose damage can hang a reader."""
    encoded = [value.encode() for value in values]
    length = max(1, *map(len, encoded))
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", length))


class _Sink(io.FileIO):
    """The file under HDF5, which never tells HDF5 that a write failed.

    HDF5 cannot close a file whose blocks it cannot write: on a full disk it goes on failing until the process ends, or
    crashes it. So the first error is kept for `check`, and from then on, as after an error elsewhere, the file, which
    is about to be removed, takes everything and keeps none.
    """

    error: OSError | None = None
    given_up = False

    def check(self) -> None:
        """Raise the error of the first write that failed."""
        if self.error is not None:
            raise self.error

    def give_up(self, kind, error, traceback) -> None:
        self.given_up = self.given_up or kind is not None

    @property
    def _deaf(self) -> bool:
        return self.given_up or self.error is not None or self.closed

    def write(self, data) -> int:
        view, done = memoryview(data).cast("B"), 0
        try:
            while done < len(view) and not self._deaf:
                done += self._put(view[done:]) or 0
        except OSError as error:
            self.error = error
        return len(view)

    def _put(self, data) -> int | None:
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        return size or 0 if self._deaf else super().truncate(size)
