"""The options of an ingest, and the steps that follow from it, as kept with the cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from synthgen.config import Config
from synthgen.cubes.readers.source import given_list
from synthgen.cubes.wavelengths import checked, parse_bands
from synthgen.errors import ConfigError

VERSION = 4  # raised whenever the same files and options give another cohort


class Ingestion(Config):
    """How to ingest."""

    size: int | None = Field(
        default=None, ge=8, le=16384, description="rows and columns of the cubes; as they are by default"
    )
    bands: tuple[float, ...] | None = Field(
        default=None, description="wavelengths to resample to, in nm: 450:900:30; those of the first file by default"
    )
    fwhm: float | None = Field(
        default=None, gt=0, le=1000, description="their width at half maximum, nm; their spacing by default"
    )
    source_wavelengths: tuple[float, ...] | None = Field(
        default=None,
        description="wavelengths of the source where it holds none: 400:1000:5 or a list; in nm, or 0.4:1:0.005um",
    )
    wavelength_unit: str | None = Field(
        default=None, description="unit of the wavelengths, whatever the files state: nm, um, Angstrom, cm-1 ..."
    )
    dark: Path | None = Field(
        default=None, description="dark reference: a file like the sources, or one value per band"
    )
    white: Path | None = Field(default=None, description="white reference, likewise")
    white_reflectance: float = Field(default=0.99, gt=0, le=2, description="reflectance of the white target")
    fov: Literal["auto", "detect", "file", "full"] = Field(
        default="auto",
        description="field of view: file (its mask), detect, full (the whole frame), or auto: the file's mask, else "
        "detected where the surround is dark, else all",
    )
    min_field: float = Field(default=0.1, ge=0, le=1, description="least fraction of the frame in the field of view")
    registration: Literal["check", "correct", "off"] = Field(default="check", description="shifts between the bands")
    max_shift: float = Field(
        default=3.0, gt=0, le=1000, description="pixels; a cube with a band farther off is refused"
    )
    max_broken: float = Field(
        default=0.01, ge=0, le=0.2, description="largest fraction of NaN in a band that is repaired"
    )
    max_saturation: float = Field(
        default=0.05, ge=0, le=1, description="largest fraction of saturated pixels in a band"
    )
    patches: bool = Field(default=False, description="cut size x size patches instead of resizing")
    min_fov: float = Field(
        default=0.5, ge=0, le=1, description="least fraction of field of view in a patch that is kept"
    )
    stride: int | None = Field(default=None, ge=1, description="step between patches, pixels; size by default")
    patient_pattern: str | None = Field(
        default=None,
        description="regular expression on file names; groups patient, eye, visit, label, or the first is the patient",
    )
    patient_table: Path | None = Field(default=None, description="CSV: file, patient[, eye, visit, label]")
    each_file_a_patient: bool = Field(default=False, description="every file is one patient")
    split: tuple[float, float, float] = Field(
        default=(0.7, 0.15, 0.15), description="fractions of patients: train, calibration, test, as 0.7,0.15,0.15"
    )
    split_seed: int = Field(default=0, description="the same seed gives the same split")
    variable: str | None = Field(default=None, description="name of the array in a .mat or .h5 file")
    axes: str | None = Field(
        default=None, description="axis order where it is not clear: chw, hwc, hcw, nchw, nhwc; detected by default"
    )
    scale: float | None = Field(
        default=None,
        description="value that means reflectance 1, where no file states it, after their gain and offset; or (up "
        "to 1) the factor to it; the same for all files",
    )

    @field_validator("bands", mode="before")
    @classmethod
    def _bands(cls, given: Any) -> Any:
        return given if given is None else parse_bands(given) if isinstance(given, str) else checked(given)

    @field_validator("split", mode="before")
    @classmethod
    def _fractions(cls, given: Any) -> Any:
        return given.replace(",", " ").split() if isinstance(given, str) else given

    @model_validator(mode="before")
    @classmethod
    def _unit(cls, given: Any) -> Any:
        """A unit behind the wavelengths is that of the wavelengths."""
        numbers, unit = given_list(given.get("source_wavelengths"), given.get("wavelength_unit"))
        return {**given, "source_wavelengths": numbers, "wavelength_unit": unit}


def check_effect(options: Ingestion) -> None:
    """ConfigError for an option that would do nothing beside, or without, another."""
    o, usual = options, Ingestion()
    needs = (
        ("fwhm", o.bands is None, "target bands", "give --bands 450:900:30, say, or leave --fwhm out"),
        ("stride", not o.patches, "patches", "add --patches, or leave --stride out"),
        ("min_fov", not o.patches, "patches", "add --patches, or leave --min-fov out"),
        ("white_reflectance", o.white is None, "a white reference", "add --white FILE, or leave it out"),
        ("max_shift", o.registration == "off", "registration", "choose --registration check, or leave it out"),
        ("min_field", o.fov == "full", "a field of view", "choose another --fov, or leave --min-field out"),
    )
    for name, missing, what, remedy in needs:
        if missing and getattr(o, name) != getattr(usual, name):
            raise ConfigError(f"'{name}' needs {what}", found=getattr(o, name), remedy=remedy)
    ways = [name for name in ("patient_table", "patient_pattern", "each_file_a_patient") if getattr(o, name)]
    if len(ways) > 1:
        raise ConfigError("the patients are given in two ways", found=" and ".join(ways), remedy="give one of them")


def steps(
    options: Ingestion, applied: Sequence[str], scales: Sequence[str], target: tuple[float, ...]
) -> list[dict[str, Any]]:
    """Every step of the ingest with its parameters, in the order in which a cube goes through them.

    `applied` is what the files declare of their numbers, `scales` their values of reflectance 1. Wavelengths are given
    as number and range: a long list does not fit into an HDF5 attribute.
    """
    o = options
    made: list[dict[str, Any]] = []
    if applied:
        made.append({"step": "calibrate as the files declare", "applied": _first(applied)})
    if o.white is not None:
        dark = "none" if o.dark is None else o.dark.name
        made.append({"step": "correct", "dark": dark, "white": o.white.name, "white_reflectance": o.white_reflectance})
    else:
        made.append({"step": "scale", "reflectance_1": _first(scales)})
    made.append({"step": "field of view", "mode": o.fov, "least_share": o.min_field, "outside": 0})
    made.append({"step": "repair broken pixels", "largest_share": o.max_broken})
    made.append({"step": "refuse saturation", "largest_share": o.max_saturation})
    made.append({"step": "registration", "mode": o.registration, "max_shift": o.max_shift})
    if o.bands is not None:
        made.append({"step": "bands", "count": len(target), "nm": [target[0], target[-1]], "fwhm": o.fwhm or "spacing"})
    if o.patches:
        made.append({"step": "patches", "size": o.size, "stride": o.stride or o.size, "min_fov": o.min_fov})
    elif o.size is not None:
        made.append({"step": "resize", "size": o.size, "filter": "bilinear, antialiased"})
    return made


def _first(words: Sequence[str], most: int = 6) -> str:
    return "; ".join(words[:most]) + f"; and {len(words) - most} more" * (len(words) > most)
