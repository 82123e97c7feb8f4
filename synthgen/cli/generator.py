"""Commands around the generator: train it, calibrate gates, sample, judge."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

from synthgen.cli.shared import GATES, GATES_FOLDER, GENERATOR, command, echo_json

if TYPE_CHECKING:
    from pathlib import Path

    from synthgen.contracts import Manifest, Verdict
    from synthgen.quality.calibrate import Calibration
    from synthgen.quality.gates import Gates


def add_to(app: typer.Typer) -> None:
    """Add the trainings to the command line, in the order in which `--help` shows them."""

    @command(app, GENERATOR, "synthgen.integration.train:train_autoencoder")
    def train_autoencoder(folder: Path) -> None:
        """Train the VQ-GAN.

        Example: synthgen train-autoencoder --data cohort.h5 --out runs/autoencoder
        """
        typer.echo(f"{folder}")

    @command(app, GENERATOR, "synthgen.integration.train:train_diffusion")
    def train_diffusion(folder: Path) -> None:
        """Train the latent diffusion.

        Example: synthgen train-diffusion --data cohort.h5 --autoencoder runs/autoencoder --out runs/diffusion
        """
        typer.echo(f"{folder}")

    @command(app, GENERATOR, "synthgen.integration.recipe:train_generator")
    def train_generator(folder: Path) -> None:
        """Train both from one recipe.

        Example: synthgen train-generator --config configs/retina224.yaml --data cohort.h5
        """
        typer.echo(f"{folder}")


def add_gates_to(app: typer.Typer) -> None:
    """Add gates and sampling, which `--help` shows after all that trains a generator."""

    @command(app, GATES, "synthgen.quality.calibrate:calibrate")
    def calibrate(gates: Gates, settings: Calibration) -> None:
        """Calibrate quality gates on real cubes.

        Example: synthgen calibrate --data cohort.h5 --out gates
        """
        limits = gates.limits
        bands, size = len(limits.wavelengths_nm), limits.size
        typer.echo(f"{settings.out}: gates {gates.hash} for {bands} bands at {size}x{size}")
        typer.echo(f"authenticity: {limits.authenticity.note}")
        typer.echo(f"plausibility: {limits.plausible.note}")
        scores = ", ".join(f"{name} Dice {score:.2f}" for name, score in limits.dice.items())
        typer.echo(f"structures: {limits.structures_note}; {scores or 'no masks to measure its Dice on'}")
        sizes = ", ".join(str(s.size) for s in limits.sets) or "none (too few patients)"
        typer.echo(f"set sizes: {sizes}; MS-SSIM_{limits.ms_ssim_scales} of real pairs {limits.real_similarity:.3f}")

    @command(app, GATES, "synthgen.integration.sample:sample_shards", several=True)
    def sample(manifest: Manifest, settings: Any) -> None:
        """Write synthetic cubes as webdataset shards.

        Example: synthgen sample --count 1000 --out shards
        """
        world = int(os.environ.get("WORLD_SIZE", "1"))
        held, size = (sum(getattr(s, name) for s in manifest.shards) for name in ("count", "bytes"))
        typer.echo(
            f"{settings.out}: {held} {settings.kind} of {manifest.proposed} proposed, {len(manifest.shards)} shards, "
            f"{size:,} bytes" + (f", written by {world} processes" if world > 1 else "")
        )
        if manifest.verdict is not None:
            typer.echo(f"gates: {manifest.verdict.status} ({manifest.verdict.reason})")

    @command(app, GATES, "synthgen.integration.judging.shards:gate_shards", positional=("shards",), names=GATES_FOLDER)
    def gate(judged: tuple[Verdict, Manifest, Path], settings: Any, as_json: bool) -> None:
        """Judge shards before use: each cube, each shard, the whole set. Exit code 0 pass, 3 fail, 4 undecided.

        Example: synthgen gate shards --gates gates
        """
        from synthgen.cli.verdict import print_shards, print_verdict
        from synthgen.integration.judging.verdict import enforce
        from synthgen.runs.files import read_json

        verdict, manifest, page = judged
        if as_json:
            echo_json(read_json(page.with_suffix(".json")))
        else:
            print_verdict(verdict)
            print_shards(manifest)
            typer.echo(f"{page}: the verdict as a page")
        enforce(verdict, path=settings.shards)

    @command(app, GATES, "synthgen.integration.judging.evaluate:evaluate", names=GATES_FOLDER)
    def evaluate(judged: tuple[Verdict, tuple[Path, Path]], settings: Any, as_json: bool) -> None:
        """Judge synthetic cubes against real ones. Exit code 0 pass, 3 fail, 4 undecided.

        Example: synthgen evaluate --synthetic cubes.npy --real eyes.h5 --gates gates --out report.html
        """
        from synthgen.cli.verdict import print_verdict
        from synthgen.integration.judging.verdict import enforce
        from synthgen.runs.files import read_json

        verdict, (page, record) = judged
        if as_json:
            echo_json(read_json(record))
        else:
            print_verdict(verdict)
            typer.echo(f"{page}: the verdict as a page; {record}: as JSON")
        enforce(verdict, path=settings.synthetic)
