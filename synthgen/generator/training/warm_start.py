"""Trainings that start from another training's weights, and whose patients they have therefore seen."""

from __future__ import annotations

import copy
from typing import Any

from synthgen.contracts import Provenance
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.wavelengths import same_wavelengths
from synthgen.errors import MismatchError
from synthgen.generator.flow import Flow
from synthgen.generator.generator import Generator
from synthgen.generator.networks.autoencoder import Autoencoder
from synthgen.generator.training.checkpoint import LoadedAutoencoder


def start_autoencoder(
    model: Autoencoder, begun: LoadedAutoencoder, cohort: Cohort, name: str, keep_latents: bool
) -> None:
    """Give the networks the weights of another autoencoder's; the codes, whose levels may differ, start anew.

    keep_latents: freeze the encoder. name: what errors call the other. MismatchError for other bands or shapes.
    """
    if not same_wavelengths(cohort.wavelengths, begun.wavelengths):
        raise MismatchError(
            "the cohort's wavelengths are not those of the autoencoder to start from",
            path=name,
            found=f"{begun.wavelengths[0]:g}-{begun.wavelengths[-1]:g} nm",
            expected=f"{cohort.wavelengths[0]:g}-{cohort.wavelengths[-1]:g} nm in the same steps",
            remedy="resample the cohort with `synthgen ingest --bands`",
        )
    mine, theirs = model.config.model_dump(), begun.model.config.model_dump()
    free = {"levels", "codes", "size"}  # the networks do not know of these
    if not theirs["spectral_head"]:
        free.add("spectral_head")  # a head put on leaves what the decoder makes as it is
    if unlike := [key for key in mine if key not in free and mine[key] != theirs[key]]:
        raise MismatchError(
            "the autoencoder to start from has another shape",
            path=name,
            found=", ".join(f"{key} {theirs[key]}" for key in unlike),
            expected=", ".join(f"{key} {mine[key]}" for key in unlike),
            remedy="take its choices, or leave start_from out",
        )
    for part in ("encoder", "decoder", "to_code", "from_code"):
        state = getattr(begun.model, part).state_dict()
        if part == "decoder" and model.decoder.spectra is not None:
            state.setdefault("spectra", model.decoder.spectra)
        getattr(model, part).load_state_dict(state)
    if keep_latents:
        model.encoder.requires_grad_(False)
        model.to_code.requires_grad_(False)


def with_decoder(begun: Generator, model: Autoencoder, provenance: Provenance, made: dict[str, Any]) -> Generator:
    """A generator's flow with another decoder and other codes, for the latents that both kept."""
    return Generator(
        copy.deepcopy(model).cpu(),
        begun.flow,
        begun.wavelengths,
        provenance,
        chunk=begun.chunk,
        tile=begun.tile,
        shift=begun.shift,
        temperature=begun.temperature,
        half=begun.half_weights,
        made={**begun.made, "autoencoder": made},
    )


def start_flow(flow: Flow, other: Generator, name: str) -> None:
    """Give the U-Net the weights of another generator's. MismatchError where their shapes differ."""
    found, expected = other.flow.config.model_dump(), flow.config.model_dump()
    if unlike := [key for key in expected if key not in ("dropout", "base_lead") and found[key] != expected[key]]:
        raise MismatchError(
            "the flow to start from has another shape",
            path=name,
            found=", ".join(f"{key} {found[key]}" for key in unlike),
            expected=", ".join(f"{key} {expected[key]}" for key in unlike),
            remedy="take its choices, or leave start_from out",
        )
    flow.unet.load_state_dict(other.flow.unet.state_dict())


def others(seen_before: list[Provenance], own: Provenance) -> tuple[Provenance, ...]:
    """What the parts that a training starts from had seen, where it is anything else than the training sees itself."""
    kept: list[Provenance] = []
    for part in seen_before:
        for other in (part, *part.also):
            alone = other.model_copy(update={"also": ()})
            if (alone.cohort_hash, alone.patients) != (own.cohort_hash, own.patients) and alone not in kept:
                kept.append(alone)
    return tuple(kept)
