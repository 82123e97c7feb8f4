"""A trained autoencoder on disk: config.json and autoencoder.safetensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from synthgen.config import build
from synthgen.contracts import Provenance
from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import InputError, must_exist
from synthgen.generator.config import AutoencoderConfig
from synthgen.generator.generator import PACKAGED, Generator
from synthgen.generator.networks.autoencoder import Autoencoder
from synthgen.generator.weights import AUTOENCODER, fill, weights_of
from synthgen.runs.files import atomic


class LoadedAutoencoder(NamedTuple):
    """A trained autoencoder with its wavelengths (nm), provenance, figures and hash."""

    model: Autoencoder
    wavelengths: tuple[float, ...]
    provenance: Provenance
    made: dict[str, Any]
    hash: str


def save_autoencoder(
    folder: str | os.PathLike,
    model: Autoencoder,
    wavelengths: Sequence[float],
    provenance: Provenance,
    made: dict[str, Any],
) -> str:
    """Write the folder, all or nothing; returns its hash."""
    about = {
        "kind": "autoencoder",
        "autoencoder": model.config.record(),
        "band_mean": list(model.statistics.mean),
        "band_std": list(model.statistics.std),
        "wavelengths_nm": [float(w) for w in wavelengths],
        "provenance": provenance.model_dump(mode="json"),
        "made": made,
    }
    weights = {"autoencoder": weights_of(model, half=False)}
    with atomic(folder) as temporary:
        temporary.mkdir(parents=True)
        return AUTOENCODER.write(temporary, about, weights)


def load_autoencoder(folder: str | os.PathLike) -> LoadedAutoencoder:
    """Read an autoencoder folder, a run folder that has one in `autoencoder/`, or the autoencoder of a generator (its
    folder, or its name where it is packaged). InputError as for a generator."""
    if holds_generator(folder):
        return _of_generator(Generator.load(folder, "cpu"))
    folder = must_exist(folder, "folder")
    if not (folder / "config.json").exists() and (folder / "autoencoder").is_dir():
        folder = folder / "autoencoder"
    about, weights, digest = AUTOENCODER.read(folder, ("autoencoder",))
    path = folder / "config.json"
    try:
        statistics = BandStatistics(tuple(about["band_mean"]), tuple(about["band_std"]))
        model = Autoencoder(build(AutoencoderConfig, about["autoencoder"], path), statistics)
        provenance = build(Provenance, about["provenance"], path)
        rest = tuple(about["wavelengths_nm"]), provenance, about["made"], digest
    except (KeyError, TypeError) as error:
        raise InputError("the configuration is not complete", path=path, found=f"no {error}") from None
    fill(model, weights["autoencoder"], folder / "autoencoder.safetensors")
    return LoadedAutoencoder(model.eval(), *rest)


def holds_generator(folder: str | os.PathLike) -> bool:
    """Whether a folder is a generator's, or the name of a packaged one."""
    path = Path(folder)
    return (path / "flow.safetensors").exists() or (not path.exists() and (PACKAGED / path).is_dir())


def _of_generator(generator: Generator) -> LoadedAutoencoder:
    made = generator.made.get("autoencoder", {})
    return LoadedAutoencoder(generator.autoencoder, generator.wavelengths, generator.provenance, made, generator.hash)
