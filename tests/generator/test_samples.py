"""A generator's samples: the same cube for the same id, whatever is around it; folders that verify; the stream."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from synthgen.contracts import Admission, Check, Provenance, Status, Tokens, Verdict
from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import ConfigError, InputError, MismatchError
from synthgen.generator.config import AutoencoderConfig, FlowConfig
from synthgen.generator.dataset import SyntheticRetinaDataset
from synthgen.generator.flow import Flow
from synthgen.generator.generator import Generator
from synthgen.generator.model_card import write_quality
from synthgen.generator.networks.autoencoder import Autoencoder
from synthgen.runs.files import read_json, write_json

BANDS = 6


def make_generator(seed: int = 0, **choices) -> Generator:
    """A small untrained generator whose every part matters to the outcome."""
    torch.manual_seed(seed)
    config = AutoencoderConfig(
        bands=BANDS, size=32, latent_channels=4, codes=64, levels=2, encoder_channels=8, decoder_channels=8
    )
    autoencoder = Autoencoder(config, BandStatistics((-4.0,) * BANDS, (0.5,) * BANDS))
    autoencoder.quantiser.codebook.normal_()
    autoencoder.quantiser.initialised.fill_(True)
    small = {"channels": 16, "multipliers": (1, 2), "attention_heads": 2, "latent_channels": 4, "latent_size": 8}
    flow = Flow(FlowConfig(bands=BANDS, base_grid=4, **small))
    for parameter in flow.parameters():
        if float(parameter.detach().abs().max()) == 0:  # zero at the start of a training: bring it to life
            torch.nn.init.normal_(parameter, std=0.05)
    provenance = Provenance.of("0" * 32, ["p0", "p1"])
    return Generator(autoencoder, flow, [450.0 + 90 * b for b in range(BANDS)], provenance, chunk=8, **choices)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.set_num_threads(1)
    return make_generator()


def rows_equal(a: Tokens, row: int, b: Tokens, other: int) -> bool:
    return torch.equal(a.indices[row], b.indices[other]) and torch.equal(a.base[row], b.base[other])


def test_samples_vary_by_their_temperature_and_carry_it(tmp_path: Path):
    usual, warm = make_generator(), make_generator(temperature=1.2)
    assert usual.hash == make_generator(temperature=1.0).hash != warm.hash
    warm.save(tmp_path / "warm")
    again = Generator.load(tmp_path / "warm", "cpu")
    assert (again.temperature, again.hash) == (1.2, warm.hash)
    tokens = warm.sample(range(4), 0)
    assert torch.equal(again.sample(range(4), 0).indices, tokens.indices)
    assert not torch.equal(usual.sample(range(4), 0).indices, tokens.indices)


@pytest.mark.parametrize("sampler", ["euler", "heun", "ab2"])
def test_a_sample_does_not_depend_on_its_neighbours(generator: Generator, sampler: str):
    ids = [3, 2**40, 0, 17, 5, 6, 7, 8, 9, 10, 11]
    together = generator.sample(ids, seed=1, steps=3, sampler=sampler)
    cubes = generator.decode(together)
    backwards = generator.sample(ids[::-1], seed=1, steps=3, sampler=sampler)
    for row, sample_id in enumerate(ids):
        alone = generator.sample([sample_id], seed=1, steps=3, sampler=sampler)
        assert rows_equal(alone, 0, together, row)
        assert rows_equal(backwards, len(ids) - 1 - row, together, row)
        assert torch.equal(generator.decode(alone)[0], cubes[row])


@pytest.mark.slow
def test_compiled_networks_are_whole_graphs_and_give_the_same_cubes(tmp_path: Path, generator: Generator):
    generator.save(tmp_path / "g")
    plain, other = Generator.load(tmp_path / "g", "cpu"), Generator.load(tmp_path / "g", "cpu")
    other = other.compiled(backend="aot_eager")  # the compiler's front without its code generator, which is slow
    tokens = plain.sample(range(3), 0, 2, "ab2")
    assert (other.sample(range(3), 0, 2, "ab2").indices == tokens.indices).float().mean() > 0.99
    assert torch.allclose(other.decode(tokens), plain.decode(tokens), atol=1e-5)


def test_seed_and_id_both_matter(generator: Generator):
    a = generator.sample([0, 1], seed=0, steps=2)
    b = generator.sample([0], seed=1, steps=2)
    assert not rows_equal(a, 0, a, 1) and not rows_equal(a, 0, b, 0)


def test_shapes_types_and_ranges(generator: Generator):
    tokens = generator.sample(range(3), seed=0, steps=1)
    cubes = generator.decode(tokens)
    assert generator.token_shape == (2, 8, 8) and tokens.indices.shape == (3, 2, 8, 8)
    assert tokens.indices.dtype == torch.int32 and tokens.base.dtype == torch.float16
    assert tokens.base.shape == (3, BANDS, 4, 4) and tokens.id.tolist() == [0, 1, 2]
    assert cubes.shape == (3, BANDS, 32, 32) and cubes.dtype == torch.float32
    assert cubes.min() >= 0 and cubes.max() <= 1


def test_no_ids_give_no_cubes(generator: Generator):
    tokens = generator.sample([], seed=0)
    assert len(tokens) == 0 and tokens.indices.shape == (0, 2, 8, 8)
    assert generator.decode(tokens).shape == (0, BANDS, 32, 32)


def test_encoding_takes_cubes_of_its_own_shape_only(generator: Generator):
    tokens = generator.encode(torch.rand(3, BANDS, 32, 32))
    assert tokens.id.tolist() == [-1, -1, -1] and tokens.indices.shape == (3, 2, 8, 8)
    with pytest.raises(MismatchError, match="6x32x32"):
        generator.encode(torch.rand(1, 5, 32, 32))


def test_variants_lie_between_their_cube_and_a_sample(generator: Generator):
    """Little noise leaves the cube; at time 1 nothing of it is left: the sample of the same id."""
    cubes = generator.decode(generator.sample(range(4), seed=3))
    near, middle, far = (generator.vary(cubes, range(4), seed=0, noise=t, steps=4) for t in (0.01, 0.5, 1.0))
    sample = generator.sample(range(4), seed=0, steps=4, sampler="ab2")
    assert torch.equal(far.indices, sample.indices) and torch.equal(far.base, sample.base)
    again = generator.encode(cubes).base.float()
    assert torch.allclose(near.base.float(), again, atol=0.05)
    apart = [float((t.base.float() - again).abs().mean()) for t in (near, middle, far)]
    assert apart == sorted(apart) and near.id.tolist() == [0, 1, 2, 3]
    alone = generator.vary(cubes[2:3], [2], seed=0, noise=0.5, steps=4)
    assert torch.equal(alone.indices, middle.indices[2:3])
    for time in (0.0, 1.5):
        with pytest.raises(ConfigError, match="a time in"):
            generator.vary(cubes, range(4), seed=0, noise=time)


def test_tokens_of_another_generator_are_refused(generator: Generator):
    other = make_generator(seed=1)
    assert other.hash != generator.hash
    with pytest.raises(MismatchError, match="another generator"):
        generator.decode(other.sample([0], seed=0, steps=1))


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_generator_is_the_same_generator(tmp_path: Path, half: bool):
    made = make_generator(half=half)
    made.save(tmp_path / "g")
    read = Generator.load(tmp_path / "g", "cpu")
    assert read.hash == made.hash and read.provenance == made.provenance and read.wavelengths == made.wavelengths
    a, b = made.sample([0, 1], seed=0, steps=2), read.sample([0, 1], seed=0, steps=2)
    assert torch.equal(a.indices, b.indices) and torch.equal(made.decode(a), read.decode(b))
    assert (tmp_path / "g" / "README.md").read_text().startswith("# Generator")
    sizes = sum(p.stat().st_size for p in (tmp_path / "g").glob("*.safetensors"))
    assert sizes < (2.2 if half else 4.2) * sum(p.numel() for p in read.state_dict().values()) + 40_000


def test_the_card_holds_the_verdict_of_the_gates_on_this_generator(tmp_path: Path, generator: Generator):
    generator.save(tmp_path / "g")
    assert "Not measured" in (tmp_path / "g" / "README.md").read_text()
    check = Check(name="artery_shape", status=Status.FAIL, value=2.25, interval=(1.5, 3.0), limit=1.0, n=9)
    verdict = Verdict(
        status=Status.FAIL, checks=(check,), proposed=20, accepted=9, generator_hash=generator.hash, gates_hash="abc"
    )
    write_quality(tmp_path / "g", verdict, "On ten phantoms.", {"psnr_db": 41.25})
    card = (tmp_path / "g" / "README.md").read_text()
    assert "| artery shape | 2.25 | 1.5 to 3 | 1 | fail |" in card and "9 of 20 proposals" in card
    assert "On ten phantoms." in card and "| psnr db | 41.25 |" in card and "Not measured" not in card
    assert Generator.load(tmp_path / "g", "cpu").hash == generator.hash
    with pytest.raises(MismatchError, match="another generator"):
        write_quality(tmp_path / "g", verdict.model_copy(update={"generator_hash": "other"}), "", {})


def test_damaged_folders_are_refused_in_one_line(tmp_path: Path, generator: Generator):
    def spoiled(name: str) -> Path:
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        return tmp_path / name

    generator.save(tmp_path / "whole")
    with pytest.raises(InputError, match="no such generator"):
        Generator.load(tmp_path / "absent")
    missing = spoiled("missing")
    (missing / "flow.safetensors").unlink()
    with pytest.raises(InputError, match=r"flow\.safetensors: weights are missing"):
        Generator.load(missing)
    truncated = spoiled("truncated")
    data = (truncated / "flow.safetensors").read_bytes()
    (truncated / "flow.safetensors").write_bytes(data[:-100])
    with pytest.raises(InputError, match="is damaged"):
        Generator.load(truncated)
    altered = spoiled("altered")
    (altered / "flow.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match="do not match its hash"):
        Generator.load(altered)
    edited = spoiled("edited")
    write_json(edited / "config.json", {**read_json(edited / "config.json"), "chunk": 9})
    with pytest.raises(InputError, match="do not match its hash"):
        Generator.load(edited)


def test_the_global_random_state_is_left_alone(generator: Generator):
    before = torch.get_rng_state()
    generator.decode(generator.sample([1], seed=0, steps=1))
    assert torch.equal(before, torch.get_rng_state())


def stream_of(generator: Generator, **options) -> SyntheticRetinaDataset:
    return SyntheticRetinaDataset(generator, steps=1, sampler="euler", **options)


def test_plain_iteration_is_exact_and_equals_direct_sampling(generator: Generator):
    items = list(stream_of(generator, count=11, seed=4))
    assert [item["id"] for item in items] == list(range(11)) and all(item["is_synthetic"] is True for item in items)
    direct = generator.decode(generator.sample(range(11), 4, 1, "euler"))
    assert torch.equal(torch.stack([item["cube"] for item in items]), direct)


def test_ranks_share_the_ids_without_overlap(generator: Generator):
    ids = [[t.id.item() for t in stream_of(generator, count=13, output="tokens", rank=r, world=3)] for r in range(3)]
    assert ids[1] == [1, 4, 7, 10] and sorted(i for rank in ids for i in rank) == list(range(13))


def test_environment_gives_rank_and_world(generator: Generator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [t.id.item() for t in stream_of(generator, count=5, output="tokens", start=10)] == [11, 13]
    with pytest.raises(ConfigError, match="rank"):
        stream_of(generator, rank=2, world=2)


def test_data_loader_workers_never_repeat_an_id(generator: Generator):
    loader = DataLoader(stream_of(generator, count=21), batch_size=4, num_workers=2)
    batches = list(loader)
    ids = torch.cat([b["id"] for b in batches]).tolist()
    assert sorted(ids) == list(range(21))
    cubes = dict(zip(ids, torch.cat([b["cube"] for b in batches]), strict=True))
    assert torch.equal(cubes[7], generator.decode(generator.sample([7], 0, 1, "euler"))[0])


def test_cuda_in_a_worker_is_refused_clearly(generator: Generator):
    dataset = stream_of(generator, count=4)
    dataset.device = torch.device("cuda")
    with pytest.raises(ConfigError, match="DataLoader worker"):
        next(iter(DataLoader(dataset, num_workers=1)))


@pytest.mark.slow
@pytest.mark.parametrize("taken", [1, 8, 11])
def test_state_resumes_in_the_middle_of_a_block(generator: Generator, taken: int):
    first, whole = stream_of(generator, count=20, rank=0, world=1), stream_of(generator, count=20)
    iterator = iter(first)
    head = [next(iterator)["id"] for _ in range(taken)]
    second = stream_of(generator, count=20)
    second.load_state_dict(first.state_dict())
    assert head + [item["id"] for item in second] == [item["id"] for item in whole]
    with pytest.raises(MismatchError):
        stream_of(generator, seed=9).load_state_dict(first.state_dict())


def ids_of(loader) -> list[int]:
    return sorted(torch.cat([b["id"] for b in loader]).tolist())


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_every_epoch_has_the_same_ids_until_another_is_set(generator: Generator, workers: int, persistent: bool):
    dataset = stream_of(generator, count=13, start=100)
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, persistent_workers=persistent)
    first = list(range(100, 113))
    assert [ids_of(loader) for _ in range(2)] == [first] * 2
    dataset.set_epoch(2)
    assert ids_of(loader) == list(range(126, 139))
    next(iter(loader))  # an epoch that is left early leaves the next one whole
    dataset.set_epoch(0)
    assert ids_of(loader) == first


def test_two_iterations_at_once_do_not_disturb_each_other(generator: Generator):
    dataset = stream_of(generator, count=5)
    pairs = [(one["id"], other["id"]) for one, other in zip(dataset, dataset, strict=True)]
    assert pairs == [(i, i) for i in range(5)]


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize("blocks", [False, True])
def test_the_rest_of_a_resumed_epoch_then_whole_ones(generator: Generator, epoch: int, blocks: bool):
    read = (
        (lambda d: (i for c in d.chunks() for i in c.tokens.id.tolist()))
        if blocks
        else (lambda d: (x["id"] for x in d))
    )
    first = stream_of(generator, count=19, chunk=5)
    first.set_epoch(epoch)
    whole = list(range(epoch * 19, epoch * 19 + 19))
    assert list(read(first)) == whole
    iterator = read(first)
    head = [next(iterator) for _ in range(10)]
    again = stream_of(generator, count=19, chunk=5)
    again.load_state_dict(first.state_dict())
    assert again.state_dict() == first.state_dict()
    assert head + list(read(again)) == whole and list(read(again)) == whole
    again.load_state_dict(again.state_dict())  # of an epoch that has ended
    assert list(read(again)) == whole


def test_a_state_of_other_workers_and_impossible_epochs_are_refused(generator: Generator):
    dataset = stream_of(generator, count=9)
    next(iter(dataset))
    other = stream_of(generator, count=9)
    other.load_state_dict(dataset.state_dict())
    with pytest.raises(MismatchError, match="DataLoader workers"):
        next(iter(DataLoader(other, num_workers=1)))
    for stream, epoch in ((dataset, -1), (stream_of(generator), 1)):
        with pytest.raises(ConfigError, match="no such epoch"):
            stream.set_epoch(epoch)
    stream_of(generator).set_epoch(0)


class OddOnly:
    """A gate that turns down cubes at even places."""

    def __call__(self, cubes: torch.Tensor) -> Admission:
        accept = torch.arange(len(cubes)) % 2 == 1
        return Admission(accept, ("even",) * int((~accept).sum()))


def test_gates_leave_out_what_they_reject_and_say_so(generator: Generator):
    dataset = stream_of(generator, count=11, gates=OddOnly())
    blocks = list(dataset.chunks())
    assert [b.proposed for b in blocks] == [8, 3]
    assert [i for i, _ in blocks[0].rejected] == [0, 2, 4, 6] and blocks[0].rejected[0][1] == "even"
    assert blocks[0].tokens.id.tolist() == [1, 3, 5, 7] and blocks[0].cubes.shape[0] == 4
    assert [item["id"] for item in stream_of(generator, count=11, gates=OddOnly())] == [1, 3, 5, 7, 9]


def test_tokens_are_not_decoded_unless_a_gate_asks(generator: Generator):
    assert next(stream_of(generator, output="tokens").chunks()).cubes is None
    assert next(stream_of(generator, output="tokens", gates=OddOnly()).chunks()).cubes is not None


def test_bad_choices_are_refused_at_once(generator: Generator):
    for options in ({"output": "images"}, {"count": -1}):
        with pytest.raises(ConfigError):
            stream_of(generator, **options)
    with pytest.raises(ConfigError, match="sampler"):
        SyntheticRetinaDataset(generator, sampler="ddim")
    with pytest.raises(ConfigError, match=r"load_gates\('phantom64'\)"):
        stream_of(generator, gates="phantom64")
