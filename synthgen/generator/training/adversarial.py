"""One step of the adversarial training of an autoencoder: networks, optimisers, losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from synthgen.generator.networks.autoencoder import Autoencoder, Reconstruction
from synthgen.generator.networks.discriminators import Critics
from synthgen.generator.training.cube_source import CubeSource, batch_positions, evenly_spaced, training_view
from synthgen.generator.training.loop import learning_rate
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
from synthgen.generator.training.options import AutoencoderTraining
from synthgen.generator.training.structure_spectra import PackedRegions, StructureError, structure_axes, unpacked
from synthgen.runs.checkpoint import Checkpoints
from synthgen.runs.guard import StepGuard
from synthgen.science.schedules import set_learning_rate

LINEAR_RATE = 0.02  # learning rate of the linear path as a share of the networks'
STARTING_CUBES = 128  # at most so many give the components of the linear path and the axes of subtle errors
AXES_CUBES = 1024  # and so many the axes of the spectra of structures
WARM_ITERATIONS, COLD_ITERATIONS = 2, 10  # Lloyd's iterations of a refit and of the start


def blocks(source: CubeSource) -> Iterator[Tensor]:
    """Some cubes of the training set, evenly chosen, [n, C, H, W], a few at a time: 128 of 672 pixels are 4 GB."""
    positions = evenly_spaced(len(source), STARTING_CUBES)
    return (source[few] for few in np.array_split(positions, -(-len(positions) // 8)))


def _groups(model: Autoencoder) -> list[dict[str, Any]]:
    """The weights of the networks, and those of the linear path, which start where they should be and move slowly."""
    linear = (".patches.", "to_code.", "from_code.") if model.config.linear_path else ()
    slow = [p for name, p in model.named_parameters() if any(part in name for part in linear)]
    fast = [p for name, p in model.named_parameters() if not any(part in name for part in linear)]
    return [{"params": fast}, *([{"params": slow, "rate": LINEAR_RATE, "weight_decay": 0.0}] if slow else [])]


class AdversarialTraining:
    """Networks, optimisers and one step of the adversarial training."""

    def __init__(
        self,
        config: AutoencoderTraining,
        accelerator: Accelerator,
        model: Autoencoder,
        source: CubeSource,
        checkpoints: Checkpoints,
        where: PackedRegions | None = None,
    ):
        self.config, self.accelerator, self.source, self.where = config, accelerator, source, where
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
            found = subtle_axes(blocks(source))
            self.subtle = Subtle(*(part.to(accelerator.device) for part in found))
        self.structures: StructureError | None = None
        if where is not None:
            some = np.array_split(evenly_spaced(len(source), AXES_CUBES), max(1, min(len(source), AXES_CUBES) // 8))
            axes = structure_axes(
                (source[few], unpacked(where.bits[torch.from_numpy(few)], where.count)) for few in some
            )
            self.structures = StructureError(axes.to(accelerator.device))
        per_epoch = len(source) // (config.batch_size * accelerator.num_processes)
        self.epoch_steps = max(config.refit_steps, per_epoch)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """x and base field [B, C, h, w] of a step and the regions of its structures, on the device."""
        c, place = self.config, {"rank": self.accelerator.process_index}
        positions = batch_positions(
            len(self.source), c.batch_size, seed=c.seed, step=step, world=self.accelerator.num_processes, **place
        )
        where = None if self.where is None else self.where.bits[torch.from_numpy(positions)]
        view = {"seed": c.seed, "step": step, **place}
        x, field, where = training_view(self.source[positions], c.base_grid, c.crop, where, **view)
        device = self.accelerator.device
        return (
            x.to(device, memory_format=torch.channels_last),
            field.to(device, memory_format=torch.channels_last),
            None if where is None or self.where is None else unpacked(where.to(device), self.where.count),
        )

    @torch.no_grad()
    def refit(self, step: int) -> None:
        """Codes from a pool of coming batches: from scratch at the start, from the present codes afterwards."""
        c, quantiser = self.config, self.model.quantiser
        cold = not bool(quantiser.initialised)
        pool, batches = [], c.pool_batches
        while len(pool) < batches:
            x, field, _ = self.batch(step + len(pool))
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
        x, field, where = self.batch(step)
        out: Reconstruction = self.wrapped(x, field)
        losses = self._reconstruction(x, out, where, step)
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

    def _reconstruction(self, x: Tensor, out: Reconstruction, where: Tensor | None, step: int) -> dict[str, Tensor]:
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
        if where is not None and self.structures is not None:
            losses["structure"], common = self.structures(x, remade, where, self._over_ranks)
            total = total + c.structure_weight * losses["structure"] + c.shift_weight * common
            losses["shift"] = self.structures.shift()
        if c.angle_weight:
            losses["angle"] = spectral_chord(self.model.denormalise(x), self.model.denormalise(remade))
            total = total + c.angle_weight * losses["angle"]
        if c.ms_ssim_weight:
            n, bands = min(c.ms_ssim_bands, x.shape[1]), x.shape[1]
            some = [(step + k * bands // n) % bands for k in range(n)]
            losses["ms_ssim"] = structure_similarity(x[:, some], remade[:, some])
            total = total + c.ms_ssim_weight * (1 - losses["ms_ssim"])
        return {"loss": total, **losses}

    def _over_ranks(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.accelerator.reduce(x, "mean"))

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
            **({} if self.structures is None else {"mean_error": self.structures.mean}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.critics.load_state_dict(state["critics"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.critic_optimiser.load_state_dict(state["critic_optimiser"])
        if self.structures is not None and "mean_error" in state:
            self.structures.mean.copy_(state["mean_error"])
