"""Train the autoencoder: `synthgen train-autoencoder --data COHORT.h5 --out RUN`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from synthgen.contracts import content_hash
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import ConfigError, MismatchError
from synthgen.generator.config import AutoencoderConfig, AutoencoderDesign, check_fits
from synthgen.generator.generator import Generator
from synthgen.generator.networks.autoencoder import Autoencoder, base_field
from synthgen.generator.training.adversarial import AdversarialTraining, blocks
from synthgen.generator.training.checkpoint import holds_generator, load_autoencoder, save_autoencoder
from synthgen.generator.training.cube_source import (
    CubeSource,
    evenly_spaced,
    split_index,
    statistics_of,
)
from synthgen.generator.training.fidelity import fidelity
from synthgen.generator.training.loop import Task, run_loop
from synthgen.generator.training.options import AutoencoderTraining as AutoencoderTraining
from synthgen.generator.training.reconstruction import evaluate
from synthgen.generator.training.structure_spectra import PackedRegions, packed, regions
from synthgen.generator.training.warm_start import others, start_autoencoder, with_decoder
from synthgen.runs.folder import RunFolder
from synthgen.runs.processes.device import make_accelerator

OnValidation = Callable[[str, dict[str, Any], Path, int], dict[str, float] | None]
Masks = dict[str, np.ndarray]  # bool [n, H, W] by name
FindMasks = Callable[[Cohort, np.ndarray], Sequence[Masks]]  # of these cubes, by one source of masks or more
MASKED = 256  # cubes whose masks are in memory at a time
VALIDATION_BYTES = 1 << 29  # at most so many of held-out cubes are reconstructed at a validation


def train_autoencoder(
    config: AutoencoderTraining,
    on_validation: OnValidation | None = None,
    find_masks: FindMasks = lambda cohort, index: [cohort.masks(index)],
    **inputs: str | None,
) -> Path:
    """Train and return the autoencoder's folder, `out/autoencoder`. Where it keeps the latents of a generator, that
    generator with the new decoder is in `out/generator`.

    find_masks: where the structures of the training cubes are, for `structure_weight`. inputs: hashes of what the
    caller's settings name beside the cohort, for the run's record.

    Raises InputError (data), ConfigError (impossible choices), NonFiniteError, Stopped.
    """
    accelerator = make_accelerator(config.precision, config.cpu)
    with RunFolder(config.out, config, resume=config.resume, main=accelerator.is_main_process) as folder:
        return _train(config, on_validation, find_masks, accelerator, folder, inputs)


def _train(
    config: AutoencoderTraining,
    on_validation: OnValidation | None,
    find_masks: FindMasks,
    accelerator: Accelerator,
    folder: RunFolder,
    inputs: Mapping[str, str | None],
) -> Path:
    cohort = Cohort.open(config.data)
    if cohort.height != cohort.width:
        raise MismatchError(
            "the generator wants square cubes",
            path=config.data,
            found=f"{cohort.height}x{cohort.width}",
            remedy="ingest again with --size",
        )
    check_fits(config, cohort.bands, cohort.height)
    if config.crop:
        if config.crop > cohort.height:
            most = f"at most {cohort.height}"
            raise ConfigError("the crop is larger than the cubes", found=config.crop, expected=most)
        check_fits(config, cohort.bands, config.crop)
    folder.made_from(data=cohort.content_hash)  # before a split is looked for, or made
    patients, train, held_out = split_index(cohort, config.patients)
    begun = load_autoencoder(config.start_from) if config.start_from else None
    if config.keep_latents and begun is None:
        raise ConfigError("keep_latents has no latents to keep", remedy="name their autoencoder as start_from")
    tokens = ((config.crop or cohort.height) // config.compression) ** 2 * len(train)
    if tokens < config.codes:
        raise ConfigError(
            "fewer latent vectors than codes to fit",
            found=f"{tokens} vectors in {len(train)} cubes for {config.codes} codes",
            remedy="fewer codes, more cubes or a lower compression",
        )
    cohort.check_finite()
    folder.made_from(
        split=content_hash(np.array(patients), train, held_out),
        start_from=None if begun is None else begun.hash,
        **inputs,
    )
    own = cohort.provenance(patients)
    seen = cohort.provenance(patients, also=others([] if begun is None else [begun.provenance], own))
    torch.manual_seed(config.seed)
    statistics = statistics_of(cohort, train) if begun is None else begun.model.statistics
    shape = AutoencoderConfig(
        bands=cohort.bands, size=cohort.height, **config.model_dump(include=set(AutoencoderDesign.model_fields))
    )
    model, source = Autoencoder(shape, statistics), CubeSource(cohort, train, statistics)
    model.quantiser.decay, model.quantiser.dead_share = config.code_decay, config.dead_share
    if begun is not None:
        start_autoencoder(model, begun, cohort, config.start_from, config.keep_latents)
        if begun.model.decoder.spectra is None:
            model.set_spectra(_residuals(model, source))
    elif not config.resume:
        model.start_at_components(_residuals(model, source))
        model.set_spectra(_residuals(model, source))
    where = _regions(find_masks, cohort, train) if config.structure_weight else None
    trainer = AdversarialTraining(config, accelerator, model, source, folder.checkpoints, where)
    room = max(1, VALIDATION_BYTES // (4 * cohort.bands * cohort.height * cohort.width))
    shown = held_out[evenly_spaced(len(held_out), min(config.validation_cubes, room))]
    validation, masks = CubeSource(cohort, shown, statistics), cohort.masks(shown)

    def validate(step: int) -> dict[str, float]:
        real, remade, figures = evaluate(trainer.model, validation)
        figures |= fidelity(real.numpy(), remade.numpy(), masks, cohort.wavelengths)
        figures |= {f"train_{k}": v for k, v in trainer.model.quantiser.health().items()}
        trainer.model.quantiser.reset_health()
        if on_validation is not None and accelerator.is_main_process:
            arrays = {"real": real.numpy(), "reconstructed": remade.numpy(), "masks": masks}
            arrays |= {"wavelengths": cohort.wavelengths}
            figures |= on_validation("autoencoder", arrays, folder.path, step) or {}
        accelerator.wait_for_everyone()
        return figures

    task = Task(trainer.step, validate, trainer.state, trainer.restore)
    done = run_loop("autoencoder", config, accelerator, folder, task, seen)
    figures = validate(done.steps)
    folder.log(done.steps, **figures)
    made = {"steps": done.steps, "minutes": round(done.seconds / 60, 1), "cubes": len(train), **figures}
    made |= {} if begun is None else {"started_from": begun.hash}
    target = folder.path / "autoencoder"
    if accelerator.is_main_process:
        save_autoencoder(target, trainer.model, cohort.wavelengths, seen, made)
        if config.keep_latents and holds_generator(config.start_from):
            whole = Generator.load(config.start_from, "cpu")
            with_decoder(whole, trainer.model, seen, made).save(folder.path / "generator")
    accelerator.wait_for_everyone()
    return target


def _residuals(model: Autoencoder, source: CubeSource) -> Iterator[Tensor]:
    """Some cubes without their base, [n, C, H, W], a few at a time."""
    return (x - base_field(model.base(x), (x.shape[-2], x.shape[-1])) for x in blocks(source))


def _regions(find_masks: FindMasks, cohort: Cohort, index: np.ndarray) -> PackedRegions:
    """The regions of the structures in these cubes, of each source of masks."""
    found, count = [], 0
    for part in np.array_split(index, -(-len(index) // MASKED)):
        sources = find_masks(cohort, part)
        for masks in sources:
            if not {"artery", "vein", "disc"} & masks.keys():
                raise ConfigError(
                    "structure_weight needs to know where arteries, veins or the disc are",
                    path=cohort.path,
                    found=f"masks of {', '.join(masks) or 'nothing'}",
                )
        whole = torch.cat([regions(masks, (len(part), cohort.height, cohort.width)) for masks in sources], 1)
        found.append(packed(whole))
        count = whole.shape[1]
    return PackedRegions(torch.cat(found), count)
