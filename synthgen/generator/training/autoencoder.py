"""Train the autoencoder: `synthgen train-autoencoder --data COHORT.h5 --out RUN`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from synthgen.generator.training.loop import Task, learning_rate, run_loop
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
from synthgen.generator.training.options import AutoencoderTraining as AutoencoderTraining
from synthgen.generator.training.reconstruction import evaluate
from synthgen.generator.training.warm_start import others, start_autoencoder, with_decoder
from synthgen.runs.checkpoint import Checkpoints
from synthgen.runs.device import make_accelerator
from synthgen.runs.folder import RunFolder
from synthgen.runs.guard import StepGuard
from synthgen.science.schedules import set_learning_rate

OnValidation = Callable[[str, dict[str, Any], Path, int], dict[str, float] | None]
VALIDATION_CUBES, VALIDATION_BYTES = 64, 1 << 29  # at most so many held-out cubes are reconstructed at a validation
LINEAR_RATE = 0.02  # learning rate of the linear path as a share of the networks'
STARTING_CUBES = 128  # at most so many give the components of the linear path and the axes of subtle errors
SHOWN_CUBES = 8  # and so many handed to the report
WARM_ITERATIONS, COLD_ITERATIONS = 2, 10  # Lloyd's iterations of a refit and of the start


def train_autoencoder(config: AutoencoderTraining, on_validation: OnValidation | None = None) -> Path:
    """Train and return the autoencoder's folder, `out/autoencoder`. Where it keeps the latents of a generator, that
    generator with the new decoder is in `out/generator`.

    Raises InputError (data), ConfigError (impossible choices), NonFiniteError, Stopped.
    """
    accelerator = make_accelerator(config.precision, config.cpu)
    with RunFolder(config.out, config, resume=config.resume, main=accelerator.is_main_process) as folder:
        return _train(config, on_validation, accelerator, folder)


def _train(
    config: AutoencoderTraining, on_validation: OnValidation | None, accelerator: Accelerator, folder: RunFolder
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
        split=content_hash(np.array(patients), train, held_out), start_from=None if begun is None else begun.hash
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
    elif not config.resume:
        model.start_at_components(x - base_field(model.base(x), (x.shape[-2], x.shape[-1])) for x in _blocks(source))
    trainer = _Trainer(config, accelerator, model, source, folder.checkpoints)
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

    def __init__(
        self,
        config: AutoencoderTraining,
        accelerator: Accelerator,
        model: Autoencoder,
        source: CubeSource,
        checkpoints: Checkpoints,
    ):
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
        more: dict[str, Any] = {"clip": 1.0, "accelerator": accelerator, "checkpoints": checkpoints}
        self.guard = StepGuard("the autoencoder", self.optimiser, [self.model], **more)
        self.critic_guard = StepGuard("the discriminators", self.critic_optimiser, [self.critics], **more)
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
        taken = self.guard(step, total, watched=losses["loss"])
        if taken.made and self.adversarial:
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
        of_reconstruction, of_adversary = (
            torch.autograd.grad(out.x, last, g.to(out.x.dtype), retain_graph=True)[0].float()
            for g in (by_reconstruction, by_adversary)
        )
        adaptive = adaptive_weight(of_reconstruction, of_adversary)
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
        self.critic_guard(step, loss)
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
