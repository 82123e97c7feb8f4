"""Self-supervised pretraining on real and synthetic cubes mixed in every batch.

synthgen pretrain --synthetic-ratio 0.5

synthgen pretrain --processes 4 --data cohort.h5 --generator run/generator --gates-folder gates
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from synthgen.command_line.command import Command
from synthgen.contracts import CubeBatch, content_hash
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.cubes.reflectance import BandStatistics, band_statistics
from synthgen.errors import ConfigError, MismatchError, Stopped
from synthgen.integration.artifacts import default_cohort, open_cohort
from synthgen.integration.exact_mix import fingerprint
from synthgen.integration.finish import finish
from synthgen.integration.method import describe_spectra, make_method
from synthgen.integration.mix import Mix, as_ratio, crossing, real_indices
from synthgen.integration.monitoring import Monitor
from synthgen.integration.options import GateOptions, MethodOptions, Pretraining, SupplyOptions
from synthgen.integration.supply.open import open_supply
from synthgen.integration.supply.real import RealCubes
from synthgen.integration.supply.source import Supply
from synthgen.runs import randomness
from synthgen.runs.checkpoint import Restored
from synthgen.runs.files import json_text, write_json
from synthgen.runs.folder import RunFolder
from synthgen.runs.guard import StepGuard
from synthgen.runs.processes.device import make_accelerator
from synthgen.runs.progress import progress
from synthgen.runs.signals import StopRequest
from synthgen.science.schedules import set_learning_rate
from synthgen.ssl.augment.pipeline import Augmenter
from synthgen.ssl.backbone import standardise
from synthgen.ssl.methods.base import Method
from synthgen.ssl.methods.grad_cache import average_gradients, in_parts
from synthgen.ssl.methods.optim import (
    learning_rate,
    make_optimizer,
    set_weight_decay,
    weight_decay_at,
)

STATISTICS_FROM = 4096  # cubes are plenty for a mean and a standard deviation per band


def pretrain(config: Pretraining) -> Path:
    """Run (or resume) a pretraining; returns the run folder with `backbone.safetensors` in it.

    Raises a SynthgenError for bad input, GateError or UndecidedError when the gates refuse the generator, Stopped after
    Ctrl-C or SIGTERM with a checkpoint written.
    """
    accelerator = make_accelerator(config.precision)
    with RunFolder(config.out, config, resume=config.resume, main=accelerator.is_main_process) as run:
        return _pretrain(config, accelerator, run)


def _pretrain(config: Pretraining, accelerator: Accelerator, run: RunFolder) -> Path:
    rank, world, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    mix = Mix(as_ratio(config.synthetic_ratio), config.batch_size, config.ratio_schedule, config.steps)
    cross = as_ratio(config.cross_views)
    restored = run.checkpoints.load() if config.resume else None

    with accelerator.main_process_first():
        cohort = open_cohort(config.data) if config.data else default_cohort(run.path / "data")
        run.made_from(data=cohort.content_hash)  # before a split is looked for, or made
        split = load_or_make_split(cohort)
        run.made_from(split=content_hash(*map(list, split)))
        split = split._replace(train=split.known) if config.patients == "known" else split
    if cohort.height != cohort.width:
        raise ConfigError("the cubes are not square", path=cohort.path, found=f"{cohort.height}x{cohort.width}")
    real = RealCubes(cohort, split.train, accelerator.device)
    statistics = band_statistics(cohort.each(real.index[:STATISTICS_FROM]))
    gates = config.part(GateOptions)
    supply = open_supply(config.part(SupplyOptions), gates, config.seed, mix, cohort, split, accelerator, run, restored)

    augmenter = Augmenter.of_cohort(config.augmentation, cohort, real.index)
    torch.manual_seed(config.seed)  # the initial weights, the same whatever was opened before; other streams are keyed
    learned = config.part(MethodOptions)
    spectra, targets = describe_spectra(learned, config.seed, real, statistics, augmenter)
    method = make_method(learned, cohort.bands, cohort.height, world > 1, spectra, targets)
    method.to(accelerator.device)
    optimizer = make_optimizer(method.trainable_parameters(), config.learning_rate, config.weight_decay)
    start, totals, skipped = 0, {"samples_seen": 0, "synthetic_seen": 0}, 0
    if restored is not None:
        start, totals, skipped = restored.step, totals_of(restored, mix), restored.shared.get("skipped", 0)
        restore_method(method, restored, run.path)
    model, optimizer = accelerator.prepare(method, optimizer)
    if restored is not None:
        optimizer.load_state_dict(restored.shared["optimizer"])
        if accelerator.scaler is not None and restored.shared.get("scaler"):
            accelerator.scaler.load_state_dict(restored.shared["scaler"])
        randomness.restore(restored.own[rank % len(restored.own)]["random"])
    own = cohort.provenance(split.train, also=supply.provenance)
    seen = run.begin(start, provenance=own.model_dump(mode="json"), precision=accelerator.mixed_precision)
    if restored is not None:
        run.rewind(start)
    guard = StepGuard(
        "the pretraining",
        optimizer,
        [method],
        parameters=method.trainable_parameters(),
        clip=config.clip,
        accelerator=accelerator,
        checkpoints=run.checkpoints,
    )

    def save(step: int) -> None:
        run.checkpoints.save(
            step,
            {
                "method": method.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
                "totals": totals,
                "skipped": skipped + guard.skipped,
            },
            {"random": randomness.capture(), **supply.state_dict()},
            rank=rank,
            world=world,
            barrier=accelerator.wait_for_everyone,
        )

    monitored = 0 < config.monitor_every <= config.steps  # a shorter run reports a collapse at its end
    monitor = None
    if main and monitored:
        before = next((m for m in run.metrics() if "monitor/rankme" in m), None) if start else None
        count = config.monitor_count
        monitor = Monitor(cohort, split, statistics, supply, accelerator.device, count, config.seed, before)
        if start == 0:
            watch(monitor, method, run, 0)

    seen_synthetic = mix.synthetic_before(start)
    began, began_step, waited = time.monotonic(), start, 0.0
    with StopRequest() as stop, progress(f"pretraining ({config.method})", config.steps, done=start, show=main) as bar:
        for step in range(start, config.steps):
            rate = learning_rate(step, config.steps, config.learning_rate, config.warmup)
            decay = weight_decay_at(step, config.steps, config.weight_decay, config.weight_decay_end)
            set_learning_rate(optimizer, rate)
            set_weight_decay(optimizer, decay)
            clock = time.monotonic()
            batch = draw_batch(step, mix, real, supply, config.seed, rank, world)
            report_news(supply, run)
            second = second_source(batch, supply, crossing(mix, cross, step))
            waited += time.monotonic() - clock
            seen_synthetic += mix.synthetic_in(step)
            totals["samples_seen"] += config.batch_size * world
            totals["synthetic_seen"] += mix.synthetic_in(step) * world
            positions = rank * config.batch_size + torch.arange(config.batch_size)
            views = _views(method, augmenter, batch["cube"], second, config.seed, step, positions, statistics)
            if config.accumulate > 1:
                loss, measured, back = in_parts(method, views, config.accumulate, lambda: accelerator.autocast())
            else:
                with accelerator.autocast():
                    loss, measured = model(views)
                back = None

            def backward(loss: Tensor = loss, back: Callable[[], None] | None = back) -> None:
                accelerator.backward(loss)
                if back is not None:
                    back()
                    average_gradients(method)

            taken = guard(step, loss, backward=backward)
            method.after_step(step, config.steps)
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                seconds = time.monotonic() - began
                run.log(
                    done,
                    loss=taken.loss,
                    learning_rate=rate,
                    weight_decay=decay,
                    gradient_norm=taken.norm,
                    **totals,
                    synthetic_share=seen_synthetic / (done * config.batch_size),
                    samples_per_second=(done - began_step) * config.batch_size * world / max(seconds, 1e-9),
                    drawing_share=waited / max(seconds, 1e-9),
                    batch_fingerprint=fingerprint_of(accelerator, batch),
                    **per_source(method.per_sample, batch["is_synthetic"]),
                    **{k: float(v) for k, v in measured.items()},
                    **supply.counters(),
                    **({"gates": supply.gates} if supply.gates is not None else {}),
                    **({"skipped_steps": skipped + guard.skipped} if skipped + guard.skipped else {}),
                )
            if monitor is not None and done % config.monitor_every == 0:
                watch(monitor, method, run, done)
            bar.advance(1, loss=taken.loss, synthetic=f"{seen_synthetic / (done * config.batch_size):.3f}")
            asked = _anyone(accelerator, bool(stop))
            if asked or done % config.checkpoint_every == 0 or done == config.steps:
                save(done)
            if asked and done < config.steps:
                raise Stopped(
                    f"a checkpoint of step {done} is in {run.path / 'checkpoints'}",
                    exit_code=stop.exit_code,
                    remedy=f"go on with --resume --out {run.path}",
                )
    if main:
        counts = {"synthetic_seen_per_process": seen_synthetic, **totals, "skipped_steps": skipped + guard.skipped}
        finish(config, run, method, cohort, statistics, seen, supply, real, counts | {"processes": world})
    accelerator.wait_for_everyone()
    return run.path


def totals_of(restored: Restored, mix: Mix) -> dict[str, int]:
    """Samples and synthetic samples of all processes before a checkpoint; those of an older one by its processes."""
    world = len(restored.own)
    counted = {
        "samples_seen": restored.step * mix.batch * world,
        "synthetic_seen": mix.synthetic_before(restored.step) * world,
    }
    return dict(restored.shared.get("totals", counted))


def restore_method(method: Method, restored: Restored, where: Path) -> None:
    """Give the method its weights back; MismatchError where it has other parts than the checkpoint's."""
    saved, own = restored.shared["method"], method.state_dict()
    if odd := sorted(saved.keys() ^ own.keys()):
        raise MismatchError(
            "the checkpoint is of a method with other parts, as earlier versions made them",
            path=where,
            found=f"{len(odd)} weights that do not match, {odd[0]} the first",
            remedy="finish the run with the version that began it, or begin another",
        )
    method.load_state_dict(saved)


def draw_batch(
    step: int, mix: Mix, real: RealCubes, supply: Supply, seed: int, rank: int = 0, world: int = 1
) -> CubeBatch:
    """The batch of `step` on this rank: real cubes first, then synthetic ones, exactly as many as the mix states."""
    n = mix.synthetic_in(step)
    cubes, ids = real.draw(real_indices(mix, step, len(real), seed, rank, world))
    real.expect(real_indices(mix, step + 1, len(real), seed, rank, world))
    if supply.source is not None:
        synthetic, synthetic_ids = supply.source.draw(n, step)
        cubes, ids = torch.cat([cubes, synthetic.to(cubes.device)]), torch.cat([ids, synthetic_ids.to(ids.device)])
    is_synthetic = torch.zeros(mix.batch, dtype=torch.bool, device=cubes.device)
    is_synthetic[mix.batch - n :] = True
    return {"cube": cubes, "is_synthetic": is_synthetic, "id": ids}


def fingerprint_of(accelerator: Accelerator, batch: CubeBatch) -> str:
    """Of the samples of all ranks: equal where two runs, or a run and its continuation, saw the same."""
    ids = 2 * batch["id"] + batch["is_synthetic"].to(batch["id"])
    return fingerprint(np.asarray(cast(Tensor, accelerator.gather(ids)).cpu()))


def second_source(batch: CubeBatch, supply: Supply, count: int) -> Tensor | None:
    """What second views are made of: the batch's cubes, variants in place of the first `count` (real) ones."""
    if supply.variants is None or not count:
        return None
    variants = supply.variants.draw(batch["cube"][:count], batch["id"][:count])
    return torch.cat([variants, batch["cube"][count:]])


def report_news(supply: Supply, run: RunFolder) -> None:
    """Report once that the rolling window has failed, and leave its verdict in the run folder."""
    if (news := supply.news()) is None:
        return
    if (verdict := supply.admission.verdict) is not None:
        write_json(run.path / "window_verdict.json", verdict.model_dump(mode="json"))
    if run.main:
        print(news, file=sys.stderr, flush=True)


def watch(monitor: Monitor, method: Method, run: RunFolder, done: int) -> None:
    """The features measured after `done` steps, and logged; a collapse is reported at once."""
    result = monitor.measure(method.backbone)
    run.log(done, **result)
    if "warning" in result:
        print(f"warning: step {done}: {result['warning']}", file=sys.stderr, flush=True)


def per_source(losses: Tensor, is_synthetic: Tensor) -> dict[str, float]:
    """The mean loss of the real and of the synthetic samples of a batch; a source that is not there is left out."""
    masks = {"loss_real": ~is_synthetic, "loss_synthetic": is_synthetic}
    return {name: losses[mask].mean().item() for name, mask in masks.items() if mask.any()}


def _views(
    method: Method,
    augmenter: Augmenter,
    cubes: Tensor,
    second: Tensor | None,
    seed: int,
    step: int,
    positions: Tensor,
    statistics: BandStatistics,
) -> list[Tensor]:
    """Augment in reflectance, then standardise the log-reflectance per band."""
    views = augmenter.views(cubes, seed, step, positions, crops=method.crops(augmenter), second=second)
    return [standardise(view, statistics) for view in views]


def _anyone(accelerator: Accelerator, asked: bool) -> bool:
    """True on every rank when a stop was asked for on any."""
    if accelerator.num_processes == 1:
        return asked
    return accelerator.reduce(torch.tensor(float(asked), device=accelerator.device), "sum").item() > 0


def print_outcome(folder: Path) -> None:
    """Print where a finished run and its backbone are."""
    if (folder / "summary.json").exists():
        print(json_text({"run": str(folder), "backbone": str(folder / "backbone.safetensors")}))


def main(argv: Sequence[str] | None = None) -> None:
    """`pretrain.py` and `python -m synthgen.integration.pretrain`: one option per field of `Pretraining`."""
    Command(pretrain, Pretraining.command, __doc__ or "", print_outcome).main(argv, "pretrain.py")


if __name__ == "__main__":
    main()
