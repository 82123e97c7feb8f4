"""Train the latent flow: `synthgen train-diffusion --data C.h5 --autoencoder RUN --out RUN2`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor

from synthgen.contracts import content_hash
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.wavelengths import same_wavelengths
from synthgen.errors import MismatchError
from synthgen.generator.config import FlowConfig, FlowDesign
from synthgen.generator.flow import Flow, flow_error, interpolate, logit_normal_times
from synthgen.generator.generator import CHUNK, Generator
from synthgen.generator.samplers import shift_time
from synthgen.generator.temperature import fit_temperature
from synthgen.generator.training.checkpoint import LoadedAutoencoder, load_autoencoder
from synthgen.generator.training.cube_source import CubeSource, batch_positions, evenly_spaced, split_index
from synthgen.generator.training.latents import cached_latents
from synthgen.generator.training.loop import LoopOptions, Task, learning_rate, run_loop
from synthgen.generator.training.warm_start import others, start_flow
from synthgen.runs.checkpoint import Checkpoints
from synthgen.runs.folder import RunFolder
from synthgen.runs.guard import StepGuard
from synthgen.runs.processes.device import make_accelerator
from synthgen.runs.randomness import stream
from synthgen.science.schedules import set_learning_rate

OnValidation = Callable[[str, dict[str, Any], Path, int], dict[str, float] | None]
SHOWN_CUBES = 16
VALIDATION_STATES = 256  # at most so many held-out states in the validation loss
VALIDATION_TIMES = 4  # times per state, spread evenly over all states


class DiffusionTraining(FlowDesign, LoopOptions):
    """A training of the latent flow on a trained autoencoder."""

    autoencoder: str = Field(description="folder of an autoencoder, of its training's run, or of a generator")
    start_from: str = Field("", description="generator whose flow the training starts from; '': from nothing")
    learning_rate: float = Field(5e-4, gt=0, description="peak learning rate")
    batch_size: int = Field(64, ge=1, description="latents per step and process")
    ema: float = Field(0.999, gt=0, lt=1, description="decay of the averaged weights (shorter during the first steps)")
    shift: float = Field(2.0, gt=0, description="time shift of training and sampling; more for larger cubes")
    temperature: float = Field(
        0.0, ge=0, le=2, description="factor on the noise of sampled latents; 0: samples vary as the training set does"
    )
    whitening: float = Field(
        0.5, ge=0, le=1, description="1: every latent channel gets unit variance; 0: channels keep their proportions"
    )
    base_weight: float = Field(1.0, gt=0, description="weight of the base spectrum's errors beside the latent's")
    keep_best: bool = Field(True, description="keep the averaged weights of the lowest held-out loss, not the last")
    validation_cubes: int = Field(
        SHOWN_CUBES, ge=1, description="synthetic cubes generated at every validation, for the pictures and the gates"
    )
    patience: int = Field(0, ge=0, description="stop after so many validations without a better one; 0: never")
    compile: bool = Field(False, description="torch.compile the U-Net: a minute at the start, then faster steps")
    half: bool = Field(False, description="store the generator's weights as float16")
    chunk: int = Field(CHUNK, ge=1, description="the batch shape in which the generator will sample and decode")
    tile: int = Field(0, ge=0, description="decode in tiles of so many tokens a side, to bound the memory; 0: whole")


def train_diffusion(config: DiffusionTraining, on_validation: OnValidation | None = None, **inputs: str | None) -> Path:
    """Train and return the generator's folder, `out/generator`.

    inputs: hashes of what the caller's settings name beside the cohort and the autoencoder, for the run's record.

    Raises InputError, ConfigError, MismatchError (autoencoder of other cubes), NonFiniteError, Stopped.
    """
    accelerator = make_accelerator(config.precision, config.cpu)
    with RunFolder(config.out, config, resume=config.resume, main=accelerator.is_main_process) as folder:
        return _train(config, on_validation, accelerator, folder, inputs)


def _train(
    config: DiffusionTraining,
    on_validation: OnValidation | None,
    accelerator: Accelerator,
    folder: RunFolder,
    inputs: Mapping[str, str | None],
) -> Path:
    cohort, main = Cohort.open(config.data), accelerator.is_main_process
    coder = load_autoencoder(config.autoencoder)
    _check_match(cohort, coder, config)
    folder.made_from(data=cohort.content_hash)  # before a split is looked for, or made
    patients, train, held_out = split_index(cohort, config.patients)
    cohort.check_finite()
    begun = Generator.load(config.start_from, "cpu") if config.start_from else None
    folder.made_from(
        split=content_hash(np.array(patients), train, held_out),
        autoencoder=coder.hash,
        start_from=None if begun is None else begun.hash,
        **inputs,
    )
    accelerator.wait_for_everyone()
    model = coder.model.to(accelerator.device).requires_grad_(False)
    statistics, held_out = model.statistics, held_out[evenly_spaced(len(held_out), VALIDATION_STATES)]
    validation = CubeSource(cohort, held_out, statistics)
    latents = []
    for name, index, source in (
        ("train", train, CubeSource(cohort, train, statistics)),
        ("held_out", held_out, validation),
    ):
        key = content_hash(coder.hash, cohort.content_hash, index)
        latents.append(cached_latents(folder.path / f"latents_{name}.safetensors", key, model, source, main=main))
    accelerator.wait_for_everyone()

    torch.manual_seed(config.seed)
    shape = model.config
    flow = Flow(
        FlowConfig(
            latent_channels=shape.code_channels,
            latent_size=shape.latent_size,
            bands=shape.bands,
            base_grid=shape.base_grid,
            **config.model_dump(include=set(FlowDesign.model_fields)),
        )
    )
    if begun is not None:
        start_flow(flow, begun, config.start_from)
    flow.statistics.fit(*latents[0], whitening=config.whitening)
    states, other_states = (flow.statistics.whiten(*part) for part in latents)
    trainer = _Trainer(config, accelerator, flow, states, other_states, folder.checkpoints)
    seen_before = [coder.provenance] if begun is None else [coder.provenance, begun.provenance]
    provenance = cohort.provenance(patients, also=others(seen_before, cohort.provenance(patients)))

    def generator(figures: dict[str, Any], temperature: float) -> Generator:
        parts = {key: getattr(config, key) for key in ("chunk", "tile", "shift", "half")}
        parts |= {"temperature": temperature, "made": {"autoencoder": coder.made, "diffusion": figures}}
        return Generator(copy.deepcopy(model), copy.deepcopy(trainer.chosen()), cohort.wavelengths, provenance, **parts)

    def validate(step: int) -> dict[str, float]:
        figures = trainer.validate()
        if on_validation is not None and main:
            some = held_out[evenly_spaced(len(held_out), SHOWN_CUBES)]
            real, made = torch.from_numpy(cohort.cubes(some)), generator({}, config.temperature or 1.0)
            arrays = {
                "real": real.numpy(),
                "reconstructed": made.decode(made.encode(real)).cpu().numpy(),
                "synthetic": made.decode(made.sample(range(config.validation_cubes), seed=config.seed)).cpu().numpy(),
                "masks": cohort.masks(some),
                "wavelengths": cohort.wavelengths,
            }
            figures |= on_validation("diffusion", arrays, folder.path, step) or {}
        accelerator.wait_for_everyone()
        return figures

    task = Task(trainer.step, validate, trainer.state, trainer.restore, trainer.finished)
    done = run_loop("diffusion", config, accelerator, folder, task, provenance)
    figures = validate(done.steps)
    folder.log(done.steps, **figures)
    made = {"steps": done.steps, "minutes": round(done.seconds / 60, 1), "cubes": len(train), **figures}
    made |= {} if begun is None else {"started_from": begun.hash}
    target = folder.path / "generator"
    if main:
        temperature = config.temperature or fit_temperature(trainer.chosen(), states, config.shift, chunk=config.chunk)
        generator(made, temperature).save(target)
    accelerator.wait_for_everyone()
    return target


def _check_match(cohort: Cohort, coder: LoadedAutoencoder, config: DiffusionTraining) -> None:
    shape = coder.model.config
    found = (cohort.bands, cohort.height, cohort.width)
    if found != (shape.bands, shape.size, shape.size):
        raise MismatchError(
            "the cohort does not fit the autoencoder",
            path=config.data,
            found="x".join(map(str, found)),
            expected=f"{shape.bands}x{shape.size}x{shape.size}",
            remedy="train an autoencoder on this cohort",
        )
    if not same_wavelengths(cohort.wavelengths, coder.wavelengths):
        raise MismatchError(
            "the cohort's wavelengths are not the autoencoder's",
            path=config.data,
            found=f"{cohort.wavelengths[0]:g}-{cohort.wavelengths[-1]:g} nm",
            expected=f"{coder.wavelengths[0]:g}-{coder.wavelengths[-1]:g} nm in the same steps",
            remedy="resample the cohort with `synthgen ingest --bands`",
        )


class _Trainer:
    """The flow, its average, the best average so far, and one training step."""

    def __init__(
        self,
        config: DiffusionTraining,
        accelerator: Accelerator,
        flow: Flow,
        states: Tensor,
        held_out: Tensor,
        checkpoints: Checkpoints,
    ):
        self.config, self.accelerator, self.states = config, accelerator, states
        flow.to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(flow.parameters(), config.learning_rate, (0.9, 0.99), weight_decay=0.01)
        self.wrapped, self.optimiser = accelerator.prepare(flow, optimiser)
        self.flow: Flow = accelerator.unwrap_model(self.wrapped)
        self.average = copy.deepcopy(self.flow).eval().requires_grad_(False)
        self.best = copy.deepcopy(self.average)
        if config.compile:
            self.flow.unet.compile(dynamic=False)
        self.best_loss, self.worse = float("inf"), 0
        self.guard = StepGuard(
            "the flow", self.optimiser, [self.flow], clip=1.0, accelerator=accelerator, checkpoints=checkpoints
        )
        self.weight = self.flow.weight(config.base_weight).to(accelerator.device)
        self.probes = {"held_out": self._probe(held_out), "train": self._probe(states)}

    def _probe(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fixed states, noise and times: the same validation problem at every validation and for every model."""
        states = states[torch.from_numpy(evenly_spaced(len(states), VALIDATION_STATES))].repeat(VALIDATION_TIMES, 1)
        random = stream("validation", 0)
        even = (torch.randperm(len(states), generator=random) + 0.5) / len(states)
        times = torch.tensor([shift_time(float(t), self.config.shift) for t in even])
        return states, torch.randn(states.shape, generator=random), times

    def step(self, step: int, done: float) -> dict[str, float]:
        c, rank, device = self.config, self.accelerator.process_index, self.accelerator.device
        rate = learning_rate(step, done, c.learning_rate, c.warmup)
        set_learning_rate(self.optimiser, rate)
        positions = batch_positions(
            len(self.states), c.batch_size, seed=c.seed, step=step, rank=rank, world=self.accelerator.num_processes
        )
        data = self.states[torch.from_numpy(positions)]
        random = stream("flow", c.seed, step, rank)
        times = logit_normal_times(len(data), c.shift, random)
        times, own = times.to(device), self.flow.times(times.to(device))
        x, target = interpolate(data.to(device), torch.randn(data.shape, generator=random).to(device), own)
        loss = flow_error(self.wrapped(x, times), target, self.flow.weight_at(self.weight, own)).mean()
        if self.guard(step, loss).made:
            self._follow(min(c.ema, (1 + step) / (10 + step)))
        return {"loss": float(loss.detach()), "learning_rate": rate}

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """average <- decay average + (1 - decay) weights."""
        torch._foreach_lerp_(list(self.average.parameters()), list(self.flow.parameters()), 1 - decay)

    def validate(self) -> dict[str, float]:
        """Held-out and training loss of the averaged weights at fixed noise and times; keeps the best average."""
        figures = {f"{name}_loss": self._loss(*probe) for name, probe in self.probes.items()}
        if figures["held_out_loss"] < self.best_loss:
            self.best_loss, self.worse = figures["held_out_loss"], 0
            self.best.load_state_dict(self.average.state_dict())
        else:
            self.worse += 1
        return {**figures, "best_loss": self.best_loss}

    @torch.no_grad()
    def _loss(self, states: Tensor, noise: Tensor, times: Tensor) -> float:
        device, errors = self.accelerator.device, []
        for part in torch.arange(len(states)).split(64):
            data, random, t = (v[part].to(device) for v in (states, noise, times))
            own = self.flow.times(t)
            x, target = interpolate(data, random, own)
            errors.append(flow_error(self.average(x, t), target, self.flow.weight_at(self.weight, own)).cpu())
        return float(torch.cat(errors).mean())

    def chosen(self) -> Flow:
        """The weights that the generator gets."""
        return self.best if self.config.keep_best and self.best_loss < float("inf") else self.average

    def finished(self) -> bool:
        return 0 < self.config.patience <= self.worse

    def state(self) -> dict[str, Any]:
        return {
            "flow": self.flow.state_dict(),
            "average": self.average.state_dict(),
            "best": self.best.state_dict(),
            "best_loss": self.best_loss,
            "worse": self.worse,
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        for name in ("flow", "average", "best"):
            getattr(self, name).load_state_dict(state[name])
        self.best_loss, self.worse = state["best_loss"], state["worse"]
        self.optimiser.load_state_dict(state["optimiser"])
