"""The demo: the main job, end to end, on simulated eyes, in minutes on a laptop.

Phantom cohort -> VQ-GAN -> latent diffusion -> gates and shards -> a study of two arms: a backbone pretrained on real
cubes alone beside one that sees half synthetic ones, both probed on patients that neither has seen -> what the second
predicts of the numbers behind the eyes, as a picture. The two trainings of the generator are far too short for good
pictures (their contact sheets state it); what feeds the study is the generator that comes with the package.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console

from synthgen.config import build
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.phantom.demographics import LEARNABLE
from synthgen.errors import StorageError, must_exist
from synthgen.experiments.study.findings import render
from synthgen.experiments.study.options import MIXED, RANDOM, REAL, SPECTRA, Study
from synthgen.experiments.study.run import run_study_here
from synthgen.experiments.target_probe import probe_targets, render_targets, write_probe
from synthgen.integration.artifacts import PACKAGED, default_cohort
from synthgen.integration.pages.run import PAGE, end_with_report
from synthgen.integration.pages.snapshots import shards_sheet
from synthgen.integration.sample import sample_shards
from synthgen.integration.train import WatchedAutoencoder, WatchedDiffusion, train_autoencoder, train_diffusion
from synthgen.runs.files import remove, write_json
from synthgen.runs.locks import one_at_a_time
from synthgen.runs.processes.device import pick_device

MARK = "demo.json"  # says that a folder is a demo's, which the next demo may replace
STAGES = ("data", "autoencoder", "diffusion", "shards", "pretrain", "study", "probe", "pictures")
PROBE_PATIENTS, PROBE_SEED = 200, 2  # labelled eyes that neither the generator nor the pretraining has seen
SMALL_AUTOENCODER = {
    "compression": 8, "encoder_channels": 32, "decoder_channels": 16, "max_channels": 64,
    "batch_size": 8, "learning_rate": 2e-3, "codes": 256,
}  # fmt: skip
CERTIFY_COUNT = 100  # cubes that the study's gates look at: the shards have had the full verdict by then
SMALL_FLOW = {"channels": 32, "multipliers": (1, 2), "batch_size": 32}


def run_demo(
    out: Annotated[str | os.PathLike, Field(description="folder for everything the demo makes")] = "demo",
    *,
    training_seconds: Annotated[float, Field(gt=0, description="for each of the generator's two trainings")] = 45,
    steps: Annotated[int, Field(ge=1, description="steps of each of the two pretrainings")] = 85,
    seed: Annotated[int, Field(description="of everything that is drawn")] = 0,
) -> dict:
    """Run every stage and print what came out.

    Args:
        out: folder for everything; an earlier demo there is replaced, any other folder with files in it is refused.
        training_seconds: for each of the two trainings of the generator.
        steps: of each of the study's two pretrainings.

    Returns:
        what is written to `demo.json`: seconds per stage, the study's findings, verdict, where things are.
    """
    with one_at_a_time(out, make=True):
        return _run_demo(Path(out), training_seconds, steps, seed)


def _run_demo(out: Path, training_seconds: float, steps: int, seed: int) -> dict:
    console = Console()
    _make_room(out)
    clock = _Clock(console)
    pictures = out / "pictures"

    clock.stage("1 of 6  Simulate eyes: one cohort to learn from, one to probe")
    cohort = default_cohort(out / "data")
    labelled = simulate_cohort(out / "data" / "labelled.h5", patients=PROBE_PATIENTS, size=64, seed=PROBE_SEED)
    console.print(f"{len(cohort)} cubes of {len(cohort.patients)} patients; {len(labelled)} labelled cubes")

    clock.stage(f"2 of 6  Train a VQ-GAN for {training_seconds:.0f} s (a real one takes an hour)")
    minutes, note = training_seconds / 60, f"barely trained: {training_seconds:.0f} s on this machine"
    autoencoder = train_autoencoder(
        WatchedAutoencoder(
            data=str(cohort.path), out=str(out / "autoencoder"), minutes=minutes, seed=seed, **SMALL_AUTOENCODER
        ),
        note,
    )
    console.print(f"contact sheet: {out / 'autoencoder' / 'contact_sheet.png'}")

    clock.stage(f"3 of 6  Train a latent diffusion for {training_seconds:.0f} s")
    train_diffusion(
        WatchedDiffusion(
            data=str(cohort.path),
            autoencoder=str(autoencoder),
            out=str(out / "diffusion"),
            minutes=minutes,
            seed=seed,
            **SMALL_FLOW,
        ),
        note,
    )
    console.print(f"contact sheet: {out / 'diffusion' / 'contact_sheet.png'}")

    clock.stage("4 of 6  Sample the packaged generator, gate its cubes, write shards")
    manifest = sample_shards(out / "shards", 250, PACKAGED, gates="report", seed=seed)
    sheet = shards_sheet(out / "shards", cohort, pictures / "real_and_synthetic.png")
    kept = sum(s.count for s in manifest.shards)
    assert manifest.verdict is not None
    console.print(f"{kept} of {manifest.proposed} cubes accepted; set gates: {manifest.verdict.status}")
    for check in manifest.verdict.checks:
        console.print(f"  {check.name:<22} {check.status:<10} {check.reason}", highlight=False, soft_wrap=True)

    clock.stage("5 of 6  Study: real cubes only beside half synthetic ones, then: can a linear model read the label?")
    study = two_arms(out / "study", cohort.path, labelled.path, steps, seed)
    findings = run_study_here(study)
    backbone = out / "study" / "pretrain" / f"{MIXED}-seed{seed}" / "backbone.safetensors"

    clock.stage("6 of 6  What does the backbone predict? Factors of the simulated eyes, beside untrained and spectra")
    report = probe_targets(
        backbone, labelled.path, ",".join(LEARNABLE), repeats=2, untrained=1, seed=seed, device=pick_device()
    )
    panel = write_probe(report, out / "probe")
    clock.stop()
    found = {
        "seconds": clock.seconds,
        "total_seconds": round(sum(clock.seconds.values()), 1),
        "verdict": manifest.verdict.model_dump(mode="json"),
        "study": findings.model_dump(mode="json"),
        "conclusion": list(findings.conclusion),
        "probe": report.model_dump(mode="json"),
        "pictures": [str(p) for p in (sheet, panel, *sorted(out.glob("*/*.png"))) if p.exists()],
        "backbone": str(backbone),
    }
    write_json(out / MARK, found)
    end_with_report(out)
    console.rule("What came out", align="left")
    render(findings)
    render_targets(report)
    console.print(f"\nThe whole job took {found['total_seconds'] / 60:.1f} minutes. Look at:")
    for picture in dict.fromkeys(found["pictures"]):
        console.print(f"  {picture}", highlight=False)
    console.print(f"Everything on one page: {out / PAGE}", highlight=False)
    console.print(f"The backbone: {found['backbone']}", highlight=False)
    console.print(NEXT.format(backbone=found["backbone"]), highlight=False)
    return found


def two_arms(
    out: str | os.PathLike, data: str | os.PathLike, labelled: str | os.PathLike, steps: int, seed: int = 0
) -> Study:
    """The demo's study: real cubes only against half synthetic ones from the packaged generator, one seed."""
    pretrain = {"steps": steps, "certify_count": CERTIFY_COUNT, "checkpoint_every": max(steps, 1)}
    return build(
        Study,
        {
            "data": str(data), "labelled": str(labelled), "out": str(out), "seeds": [seed],
            "arms": [SPECTRA, RANDOM, REAL, MIXED], "given_generator": PACKAGED, "given_gates": PACKAGED,
            "pretrain": pretrain,
        },
    )  # fmt: skip


NEXT = """
Next, on your own cubes:
  synthgen ingest YOUR_FILES... cohort.h5 --size 64 --bands 450:900:30
  synthgen train-generator --data cohort.h5 --out runs/generator
  synthgen calibrate --data cohort.h5 --out runs/gates
  synthgen pretrain --data cohort.h5 --generator runs/generator/diffusion/generator \\
      --gates-folder runs/gates --synthetic-ratio 0.5
  synthgen study --config configs/study.yaml --data cohort.h5     (does it help? all arms, several seeds)

In your own code:
  model = timm.create_model("resnet18", in_chans=16, num_classes=0)
  model.load_state_dict(safetensors.torch.load_file("{backbone}"))
"""


class _Clock:
    """Prints the heading of each stage and keeps how long it took."""

    def __init__(self, console: Console):
        self.console, self.seconds, self._name, self._began = console, {}, "", 0.0

    def stage(self, name: str) -> None:
        self.stop()
        self._name, self._began = name, time.monotonic()
        self.console.rule(name, align="left")

    def stop(self) -> None:
        if self._name:
            self.seconds[self._name.split("  ")[0]] = round(time.monotonic() - self._began, 1)


def _make_room(out: Path) -> None:
    """An empty or fresh folder, or one that an earlier demo made, which is cleared of that demo's stages."""
    if out.exists():
        must_exist(out, "folder")
        if any(out.iterdir()) and not (out / MARK).exists():
            raise StorageError(
                "is not empty and no earlier demo's", path=out, remedy="choose another folder with --out"
            )
        for name in STAGES:
            remove(out / name)
    write_json(out / MARK, {})
