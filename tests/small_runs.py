"""A tiny cohort and a tiny untrained generator: the loop does not care how good the cubes are."""

import sys

import numpy as np
import pytest
import torch

from synthgen.cli import app as cli
from synthgen.config import build
from synthgen.contracts import Admission, Manifest, Provenance, Tokens
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.cubes.reflectance import band_statistics
from synthgen.experiments.study.options import Study
from synthgen.generator.config import AutoencoderConfig, FlowConfig
from synthgen.generator.flow import Flow
from synthgen.generator.generator import Generator
from synthgen.generator.networks.autoencoder import Autoencoder
from synthgen.runs.files import write_json
from synthgen.shards.storage import place_of
from synthgen.shards.writer import Part, Range, _write_shard
from tests.experiments.study.studies import TINY

NM = tuple(450.0 + 30 * i for i in range(16))


def write_toy_cohort(path, patients=10, size=32, wavelengths=NM, seed=0):
    """Two cubes per patient: smooth spectra with a patient's own level, and a blob."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    spectrum = np.linspace(0.02, 0.3, len(wavelengths))[:, None, None]
    with CohortWriter(path, wavelengths, size, size) as writer:
        for patient in range(patients):
            level = rng.uniform(0.6, 1.2)
            for eye in ("OD", "OS"):
                y, x = rng.uniform(0.3, 0.7, 2)
                blob = 1 + np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.02)
                noise = 1 + 0.02 * rng.standard_normal((len(wavelengths), size, size))
                cube = (spectrum * level * blob * noise).clip(0, 1).astype(np.float32)
                writer.append(cube, f"t{seed}-{patient:03d}", eye=eye, label=float(patient % 2))
    return Cohort.open(path)


def make_generator(cohort, chunk=8, seed=0):
    torch.manual_seed(seed)
    size = cohort.height
    config = AutoencoderConfig(
        bands=cohort.bands, size=size, compression=8, latent_channels=4, codes=32, base_grid=2,
        encoder_channels=8, decoder_channels=8, max_channels=16,
    )  # fmt: skip
    autoencoder = Autoencoder(config, band_statistics(cohort.cubes()))
    for level in range(config.levels):
        autoencoder.quantiser.codebook.data[level].normal_()
    flow = Flow(
        FlowConfig(
            latent_channels=config.code_channels,
            latent_size=config.latent_size,
            bands=cohort.bands,
            base_grid=2,
            channels=8,
            multipliers=(1, 2),
            attention_heads=2,
        )
    )
    flow.statistics.base_std.fill_(0.1)
    return Generator(autoencoder, flow, cohort.wavelengths, Provenance.of("0" * 32, ["other"]), chunk=chunk)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    return write_toy_cohort(tmp_path_factory.mktemp("cohort") / "toy.h5")


@pytest.fixture(scope="session")
def toy_cohort_maker():
    return write_toy_cohort


@pytest.fixture(scope="session")
def generator(cohort):
    return make_generator(cohort)


@pytest.fixture(scope="session")
def other_generator(cohort):
    return make_generator(cohort, seed=9)


@pytest.fixture(scope="session")
def generator_folder(generator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generator") / "g"
    generator.save(folder)
    return folder


@pytest.fixture(scope="session")
def eye_generator(eyes):
    """An untrained generator at the size of the small gates."""
    return make_generator(eyes)


@pytest.fixture(scope="session")
def shard_folder_maker(generator):
    """Write a shard folder of given cubes, `each` to a shard."""

    def make(folder, cubes, each=1000, **changes):
        cubes = torch.as_tensor(cubes)
        manifest = Manifest(
            kind="cubes",
            generator_hash=generator.hash,
            seed=0,
            steps=1,
            sampler="euler",
            wavelengths_nm=NM,
            size=cubes.shape[-1],
            proposed=len(cubes),
            provenance=generator.provenance,
        )
        folder.mkdir(parents=True)
        for number, start in enumerate(range(0, len(cubes), each)):
            ids = torch.arange(start, min(start + each, len(cubes)))
            end = int(ids[-1]) + 1
            tokens = Tokens(torch.zeros(len(ids), 1, 4, 4), torch.zeros(len(ids), 16, 2, 2), ids, generator.hash)
            entry = _write_shard(
                place_of(folder), manifest, Range(number, start, end), Part(tokens, cubes[start:end]), {}
            )
            manifest = manifest.model_copy(update={"shards": (*manifest.shards, entry)})
        write_json(folder / "manifest.json", manifest.model_copy(update=changes).model_dump(mode="json"))
        return folder

    return make


@pytest.fixture
def synthgen(capsys, monkeypatch):
    """Run a command in this process: (exit code, standard output, standard error)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["synthgen", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        message = capsys.readouterr()
        return code, message.out, message.err

    return call


class EveryOther:
    """A gate that rejects every cube with an odd fingerprint: about half, always the same ones."""

    def __call__(self, cubes):
        marks = cubes.double().sum((1, 2, 3)).long() % 2 == 0  # coarse: one rounding more or less must not matter
        return Admission(marks, tuple("odd" for _ in range(int((~marks).sum()))))


@pytest.fixture
def every_other():
    return EveryOther()


@pytest.fixture(scope="module")
def study_eyes(toy_cohort_maker, tmp_path_factory):
    cohort = toy_cohort_maker(tmp_path_factory.mktemp("study") / "toy.h5", patients=20, seed=2)
    load_or_make_split(cohort, (0.4, 0.2, 0.4))
    return cohort


@pytest.fixture
def make_study(study_eyes, tmp_path):
    def study(**more):
        return build(Study, {"data": str(study_eyes.path), "out": str(tmp_path / "study"), "pretrain": TINY, **more})

    return study
