"""Train the autoencoder: `synthgen train-autoencoder --data COHORT.h5 --out RUN`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import ConfigError, MismatchError
from synthgen.generator.config import AutoencoderConfig, AutoencoderDesign, check_fits
from synthgen.generator.generator import Generator
from synthgen.generator.networks.autoencoder import Autoencoder, Reconstruction, base_field
from synthgen.generator.networks.discriminators import Critics
from synthgen.generator.training.checkpoint import holds_generator, load_autoencoder, save_autoencoder
from synthgen.generator.training.cube_source import (
    CubeSource,
    batch_positions,
    split_index,
    spread,
    statistics_of,
    training_view,
)
from synthgen.generator.training.fidelity import fidelity
from synthgen.generator.training.loop import (
    LoopOptions,
    Task,
    gradients,
    learning_rate,
    mean_over_ranks,
    run_loop,
)
from synthgen.generator.training.losses import (
    Subtle,
    adaptive_weight,
    coarse_error,
    detail_weights,
    feature_matching,
    hinge_critic,
    hinge_generator,
    spectral_chord,
    structure_similarity,
    subtle_axes,
    subtle_error,
)
from synthgen.generator.training.reconstruction import evaluate
from synthgen.generator.training.warm_start import others, start_autoencoder, with_decoder
from synthgen.runs.device import make_accelerator
from synthgen.runs.folder import RunFolder
from synthgen.runs.nan_stop import NanStop
from synthgen.science.schedules import set_learning_rate

OnValidation = Callable[[str, dict[str, Any], Path, int], dict[str, float] | None]
VALIDATION_CUBES, VALIDATION_BYTES = 64, 1 << 29  # at most so many held-out cubes are reconstructed at a validation
LINEAR_RATE = 0.02  # learning rate of the linear path as a share of the networks'
STARTING_CUBES = 128  # at most so many give the components of the linear path and the axes of subtle errors
SHOWN_CUBES = 8  # and so many handed to the report
WARM_ITERATIONS, COLD_ITERATIONS = 2, 10  # Lloyd's iterations of a refit and of the start


class AutoencoderTraining(AutoencoderDesign, LoopOptions):
    """A training of the autoencoder. Loss weights of 0 switch a term off; adversarial 0 and matching 0 is a VQ-VAE."""

    command: ClassVar[str] = "train-autoencoder"
    start_from: str = Field("", description="autoencoder or generator whose networks the training starts from")
    keep_latents: bool = Field(
        False,
        description="leave the encoder as `start_from` has it: flows on its latents stay valid, levels may change",
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of the autoencoder")
    critic_learning_rate: float = Field(2e-4, gt=0, description="peak learning rate of the discriminators")
    crop: int | None = Field(None, ge=8, description="train on random crops of this side; the model runs at full size")
    quantiser_start: float = Field(
        0.05, ge=0, lt=1, description="share of training before the codes start: k-means then sees latents with sense"
    )
    kmeans: Literal["epoch", "once", "none"] = Field(
        "epoch",
        description="k-means at the start and at every epoch; once: at the start; none: codes start at random latents",
    )
    refit_steps: int = Field(100, ge=1, description="least steps between k-means refits, else one per epoch")
    refit_until: float = Field(0.9, ge=0, le=1, description="share of training after which codes only follow the EMA")
    pool_batches: int = Field(4, ge=1, description="batches pooled for k-means (more at the start if codes need them)")
    code_decay: float = Field(0.95, ge=0, lt=1, description="moving average of the codes; 0.99 lags a moving encoder")
    dead_share: float = Field(
        0.1, ge=0, lt=1, description="codes used less than this share of the uniform share are put on new vectors"
    )
    detail_weight: float = Field(
        0.0, ge=0, description="how much more the L1 counts where something thin stands out of its surroundings"
    )
    coarse_weight: float = Field(1.0, ge=0, description="weight of the L1 of means over 2x2, 4x4 and 8x8 pixels")
    subtle_weight: float = Field(
        0.0, ge=0, description="weight of the squared error along axes of spectra, more where they are rare"
    )
    angle_weight: float = Field(1.0, ge=0, description="weight of the spectral angle (as a chord, about radians)")
    ms_ssim_weight: float = Field(0.2, ge=0, description="weight of 1 - MS-SSIM")
    ms_ssim_bands: int = Field(4, ge=1, description="bands per step in the MS-SSIM term, another set each step")
    commitment_weight: float = Field(0.25, ge=0, description="weight of the commitment loss")
    adversarial_weight: float = Field(0.1, ge=0, description="weight of the adversarial term (adaptive on top)")
    matching_weight: float = Field(0.5, ge=0, description="weight of the feature matching")
    adversarial_start: float = Field(0.3, ge=0, le=1, description="share of training when the critics join the loss")
    adversarial_ramp: float = Field(0.1, gt=0, le=1, description="share of training over which they reach full weight")


def train_autoencoder(config: AutoencoderTraining, on_validation: OnValidation | None = None) -> Path:
    """Train and return the autoencoder's folder, `out/autoencoder`. Where it keeps the latents of a generator, that
    generator with the new decoder is in `out/generator`.

    Raises InputError (data), ConfigError (impossible choices), NonFiniteError, Stopped.
    """
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
    accelerator = make_accelerator(config.precision, config.cpu)
    folder = RunFolder(config.out, config, resume=config.resume, main=accelerator.is_main_process)
    torch.manual_seed(config.seed)
    statistics = statistics_of(cohort, train) if begun is None else begun.model.statistics
    shape = AutoencoderConfig(
        bands=cohort.bands, size=cohort.height, **config.model_dump(include=set(AutoencoderDesign.model_fields))
    )
    model, source = Autoencoder(shape, statistics), CubeSource(cohort, train, statistics)
    model.quantiser.decay, model.quantiser.dead_share = config.code_decay, config.dead_share
    if begun is not None:
        start_autoencoder(model, begun, cohort, config.start_from, config.keep_latents)
    elif not config.resume:
        model.start_at_components(x - base_field(model.base(x), (x.shape[-2], x.shape[-1])) for x in _blocks(source))
    trainer = _Trainer(config, accelerator, model, source)
    room = max(1, VALIDATION_BYTES // (4 * cohort.bands * cohort.height * cohort.width))
    shown = held_out[spread(len(held_out), min(VALIDATION_CUBES, room))]
    validation, masks = CubeSource(cohort, shown, statistics), cohort.masks(shown)

    def validate(step: int) -> dict[str, float]:
        real, remade, figures = evaluate(trainer.model, validation)
        figures |= fidelity(real.numpy(), remade.numpy(), masks, cohort.wavelengths)
        figures |= {f"train_{k}": v for k, v in trainer.model.quantiser.health().items()}
        trainer.model.quantiser.reset_health()
        if on_validation is not None and accelerator.is_main_process:
            some = spread(len(shown), SHOWN_CUBES)
            arrays = {"real": real[some].numpy(), "reconstructed": remade[some].numpy()}
            arrays |= {"masks": {name: mask[some] for name, mask in masks.items()}, "wavelengths": cohort.wavelengths}
            figures |= on_validation("autoencoder", arrays, folder.path, step) or {}
        accelerator.wait_for_everyone()
        return figures

    try:
        task = Task(trainer.step, validate, trainer.state, trainer.restore)
        done = run_loop("autoencoder", config, accelerator, folder, task)
        figures = validate(done.steps)
        folder.log(done.steps, **figures)
    finally:
        folder.close()
    made = {"steps": done.steps, "minutes": round(done.seconds / 60, 1), "cubes": len(train), **figures}
    made |= {} if begun is None else {"started_from": begun.hash}
    target = folder.path / "autoencoder"
    if accelerator.is_main_process:
        own = cohort.provenance(patients)
        seen = cohort.provenance(patients, also=others([] if begun is None else [begun.provenance], own))
        save_autoencoder(target, trainer.model, cohort.wavelengths, seen, made)
        if config.keep_latents and holds_generator(config.start_from):
            whole = Generator.load(config.start_from, "cpu")
            with_decoder(whole, trainer.model, seen, made).save(folder.path / "generator")
    accelerator.wait_for_everyone()
    return target


def _blocks(source: CubeSource) -> Iterator[Tensor]:
    """Some cubes of the training set, evenly chosen, [n, C, H, W], a few at a time: 128 of 672 pixels are 4 GB."""
    positions = spread(len(source), STARTING_CUBES)
    return (source[few] for few in np.array_split(positions, -(-len(positions) // 8)))


def _groups(model: Autoencoder) -> list[dict[str, Any]]:
    """The weights of the networks, and those of the linear path, which start where they should be and move slowly."""
    linear = (".patches.", "to_code.", "from_code.") if model.config.linear_path else ()
    slow = [p for name, p in model.named_parameters() if any(part in name for part in linear)]
    fast = [p for name, p in model.named_parameters() if not any(part in name for part in linear)]
    return [{"params": fast}, *([{"params": slow, "rate": LINEAR_RATE, "weight_decay": 0.0}] if slow else [])]


class _Trainer:
    """Networks, optimisers and one step of the adversarial training."""

    def __init__(self, config: AutoencoderTraining, accelerator: Accelerator, model: Autoencoder, source: CubeSource):
        self.config, self.accelerator, self.source = config, accelerator, source
        self.adversarial = config.adversarial_weight > 0 or config.matching_weight > 0
        critics = Critics(model.config.bands)
        optimiser = torch.optim.AdamW(_groups(model), config.learning_rate, (0.9, 0.99), weight_decay=1e-4)
        critic_optimiser = torch.optim.AdamW(critics.parameters(), config.critic_learning_rate, (0.5, 0.9))
        for net in (model, critics):
            net.to(memory_format=torch.channels_last)
        self.wrapped, self.wrapped_critics, self.optimiser, self.critic_optimiser = accelerator.prepare(
            model, critics, optimiser, critic_optimiser
        )
        self.model: Autoencoder = accelerator.unwrap_model(self.wrapped)
        self.critics: Critics = accelerator.unwrap_model(self.wrapped_critics)
        self.nan, self.critic_nan = NanStop(), NanStop()
        self.subtle: Subtle | None = None
        if config.subtle_weight:
            found = subtle_axes(_blocks(source))
            self.subtle = Subtle(*(part.to(accelerator.device) for part in found))
        per_epoch = len(source) // (config.batch_size * accelerator.num_processes)
        self.epoch_steps = max(config.refit_steps, per_epoch)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """x and base field [B, C, h, w] of a step, on the device."""
        c, place = self.config, {"rank": self.accelerator.process_index}
        positions = batch_positions(
            len(self.source), c.batch_size, seed=c.seed, step=step, world=self.accelerator.num_processes, **place
        )
        x, field = training_view(self.source[positions], c.base_grid, c.crop, seed=c.seed, step=step, **place)
        device = self.accelerator.device
        return (
            x.to(device, memory_format=torch.channels_last),
            field.to(device, memory_format=torch.channels_last),
        )

    @torch.no_grad()
    def refit(self, step: int) -> None:
        """Codes from a pool of coming batches: from scratch at the start, from the present codes afterwards."""
        c, quantiser = self.config, self.model.quantiser
        cold = not bool(quantiser.initialised)
        pool, batches = [], c.pool_batches
        while len(pool) < batches:
            x, field = self.batch(step + len(pool))
            vectors = self.model.code_vectors(x - field).float()
            pool.append(vectors.permute(0, 2, 3, 1).reshape(-1, vectors.shape[1]))
            needed = lambda vectors: -(-vectors // (len(pool[0]) * self.accelerator.num_processes))
            wanted = needed((16 if cold else 2) * c.codes)  # vectors for each code, where the batches are small
            batches = max(c.pool_batches, min(wanted, 64), needed(c.codes))
        per_step = len(pool[0]) * self.accelerator.num_processes
        if c.kmeans == "none":
            quantiser.draw(torch.cat(pool), c.seed, per_step)
        else:
            quantiser.fit(torch.cat(pool), c.seed, per_step, COLD_ITERATIONS if cold else WARM_ITERATIONS)

    def step(self, step: int, done: float) -> dict[str, float]:
        c = self.config
        begun, quantiser = done >= c.quantiser_start, self.model.quantiser
        again = c.kmeans == "epoch" and step % self.epoch_steps == 0 and done < c.refit_until
        if begun and (again or not bool(quantiser.initialised)):
            self.refit(step)
        set_learning_rate(self.optimiser, learning_rate(step, done, c.learning_rate, c.warmup))
        set_learning_rate(self.critic_optimiser, learning_rate(step, done, c.critic_learning_rate, c.warmup))
        x, field = self.batch(step)
        out: Reconstruction = self.wrapped(x, field)
        losses = self._reconstruction(x, out, step)
        total = losses["loss"]
        ramp = min(max((done - c.adversarial_start) / c.adversarial_ramp, 0.0), 1.0) if self.adversarial else 0.0
        if ramp > 0:
            total, more = self._with_critics(x, out, total, ramp)
            losses |= more
        total = total + c.commitment_weight * out.quantised.commitment
        losses["commitment"] = out.quantised.commitment
        found = mean_over_ranks(losses["loss"], self.accelerator)
        if math.isfinite(found):  # a finite loss may still have gradients that are not: those of the critics, say
            found = gradients(self.accelerator, self.optimiser, self.model, total)
        if self.nan(found, step):
            self.optimiser.zero_grad()
            return {k: float(v.detach()) for k, v in losses.items()}
        self.optimiser.step()
        if self.adversarial:
            losses["critic"] = self._train_critics(x, out.x.detach(), step)
        return {k: float(v.detach()) for k, v in losses.items()}

    def _reconstruction(self, x: Tensor, out: Reconstruction, step: int) -> dict[str, Tensor]:
        c, remade = self.config, out.x.float()
        error = (remade - x).abs()
        losses = {"l1": (error * detail_weights(x, c.detail_weight) if c.detail_weight else error).mean()}
        total = losses["l1"]
        if c.coarse_weight:
            losses["coarse"] = coarse_error(remade - x)
            total = total + c.coarse_weight * losses["coarse"]
        if self.subtle is not None:
            losses["subtle"] = subtle_error(x, remade, self.subtle)
            total = total + c.subtle_weight * losses["subtle"]
        if c.angle_weight:
            losses["angle"] = spectral_chord(self.model.denormalise(x), self.model.denormalise(remade))
            total = total + c.angle_weight * losses["angle"]
        if c.ms_ssim_weight:
            n, bands = min(c.ms_ssim_bands, x.shape[1]), x.shape[1]
            some = [(step + k * bands // n) % bands for k in range(n)]
            losses["ms_ssim"] = structure_similarity(x[:, some], remade[:, some])
            total = total + c.ms_ssim_weight * (1 - losses["ms_ssim"])
        return {"loss": total, **losses}

    def _with_critics(
        self, x: Tensor, out: Reconstruction, reconstruction: Tensor, ramp: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss with the critics' part. Each term's gradient at the reconstruction is taken once; the decoder sees
        their weighted sum, so that the adaptive weight costs one extra last-layer gradient and no second pass.
        """
        c = self.config
        self.critics.eval().requires_grad_(False)
        remade = out.x.detach().float().requires_grad_()
        with torch.no_grad():
            real = self.critics(x)
        fake = self.critics(remade)
        adversarial = torch.stack([hinge_generator(f.logits) for f in fake]).mean()
        pairs = zip(real, fake, strict=True)
        matching = torch.stack([feature_matching(r.features, f.features) for r, f in pairs]).mean()
        (by_adversary,) = torch.autograd.grad(adversarial, remade, retain_graph=True)
        (by_matching,) = torch.autograd.grad(matching, remade)
        (by_reconstruction,) = torch.autograd.grad(reconstruction, out.x, retain_graph=True)
        last = self.model.decoder.last.weight
        reconstruction, adversarial = (
            torch.autograd.grad(out.x, last, g.to(out.x.dtype), retain_graph=True)[0].float()
            for g in (by_reconstruction, by_adversary)
        )
        adaptive = adaptive_weight(reconstruction, adversarial)
        gradient = (
            by_reconstruction
            + ramp * c.adversarial_weight * adaptive * by_adversary
            + ramp * c.matching_weight * by_matching
        )
        self.critics.train().requires_grad_(True)
        surrogate = (out.x * gradient.detach()).sum()  # its gradient at the reconstruction is `gradient`
        return surrogate, {"adversarial": adversarial, "matching": matching, "adaptive": adaptive}

    def _train_critics(self, x: Tensor, remade: Tensor, step: int) -> Tensor:
        critiques = self.wrapped_critics(torch.cat([x, remade.float()]))
        loss = torch.stack([hinge_critic(*c.logits.float().chunk(2)) for c in critiques]).mean()
        if not self.critic_nan(gradients(self.accelerator, self.critic_optimiser, self.critics, loss), step):
            self.critic_optimiser.step()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "critics": self.critics.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "critic_optimiser": self.critic_optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.critics.load_state_dict(state["critics"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.critic_optimiser.load_state_dict(state["critic_optimiser"])
