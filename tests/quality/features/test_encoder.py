"""The encoder: frozen for good, the same after storage, of the bands it was made for, and from weights of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from synthgen.contracts import Provenance
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.reflectance import BandStatistics, log_reflectance
from synthgen.errors import ConfigError, InputError, MismatchError
from synthgen.quality.features.distortions import blurred
from synthgen.quality.features.encoder import Encoder, train_encoder
from synthgen.quality.features.pretrained import load_encoder, timm_encoder
from synthgen.quality.sets.moments import frechet_distance
from synthgen.ssl.backbone import make_backbone, save_backbone

pytestmark = pytest.mark.slow  # one fixture of all takes seconds

SIZE, BANDS = 32, 16
WAVELENGTHS = tuple(450.0 + 30 * i for i in range(BANDS))


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    folder = tmp_path_factory.mktemp("eyes")
    return torch.from_numpy(simulate_cohort(folder / "eyes.h5", patients=100, size=SIZE, seed=5, workers=1).cubes())


@pytest.fixture(scope="module")
def encoder(eyes: torch.Tensor) -> Encoder:
    torch.set_num_threads(1)
    return train_encoder(eyes[:80], steps=60, provenance=Provenance.of("a" * 32, ["p1"]))


@pytest.mark.parametrize("fault", ["blur", "bands reversed", "bands swapped"])
def test_faults_stand_out_from_unseen_real_eyes(encoder: Encoder, eyes: torch.Tensor, fault: str) -> None:
    real, other = eyes[80:140], eyes[140:]
    order = torch.arange(BANDS)
    order[[4, 6]] = order[[6, 4]]
    faulty = {
        "blur": lambda x: blurred(log_reflectance(x), 1.0).exp(),
        "bands reversed": lambda x: x.flip(1),
        "bands swapped": lambda x: x[:, order],
    }[fault](other)
    null = frechet_distance(encoder(real).numpy(), encoder(other).numpy())
    assert frechet_distance(encoder(real).numpy(), encoder(faulty).numpy()) > 3 * null


def test_results_do_not_depend_on_the_batch_and_are_not_disturbed_by_train(
    encoder: Encoder, eyes: torch.Tensor
) -> None:
    alone = torch.cat([encoder(cube[None]) for cube in eyes[:5]])
    before = {k: v.clone() for k, v in encoder.network.state_dict().items()}
    encoder.network.train()
    together = encoder(eyes[:130])
    after = encoder.network.state_dict()
    assert torch.allclose(alone, together[:5], atol=1e-4)
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not any(m.training for m in encoder.network.modules())
    assert not any(p.requires_grad for p in encoder.network.parameters())


def test_it_is_the_same_after_storage_in_half_precision(encoder: Encoder, eyes: torch.Tensor) -> None:
    tensors = encoder.tensors()
    again = Encoder.restored(encoder.about(), tensors)
    assert sum(t.numel() * t.element_size() for t in tensors.values()) < 1.2e6
    assert torch.equal(encoder(eyes[:8]), again(eyes[:8]))
    assert again.hash == encoder.hash and again.trained_on == encoder.trained_on
    assert again.dimension == encoder(eyes[:1]).shape[1]
    key = next(k for k, t in tensors.items() if t.ndim == 4)
    changed = Encoder.restored(encoder.about(), {**tensors, key: tensors[key] * 1.01})
    assert changed.hash != encoder.hash


def test_training_is_keyed_and_leaves_the_random_state(eyes: torch.Tensor) -> None:
    state, cubes = torch.get_rng_state(), eyes[:10].clone()
    one = train_encoder(eyes[:10], steps=2, seed=3)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(cubes, eyes[:10])
    assert train_encoder(eyes[:10], steps=2, seed=3).hash == one.hash
    assert train_encoder(eyes[:10], steps=2, seed=4).hash != one.hash


def test_large_cubes_are_seen_smaller(encoder: Encoder) -> None:
    assert encoder.look(torch.rand(1, BANDS, 224, 224)).shape[-2:] == (112, 112)


def test_cubes_that_cannot_be_used_are_refused(encoder: Encoder, eyes: torch.Tensor) -> None:
    with pytest.raises(MismatchError, match="16 bands"):
        encoder(eyes[:2, :9])
    with pytest.raises(InputError, match="too few"):
        train_encoder(eyes[:1], steps=1)
    flat = eyes[:4].clone()
    flat[:, 3] = 0.2
    with pytest.raises(InputError, match="band 3 is constant"):
        train_encoder(flat, steps=1)


def test_weights_for_photographs_see_three_bands_or_all(tmp_path: Path, eyes: torch.Tensor) -> None:
    """Adapted to all bands, a cube whose bands are all equal looks as the same image does in three channels."""
    network = timm.create_model("test_resnet", num_classes=5).eval()
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    three, everything = timm_encoder("test_resnet", path, BANDS, (7, 3, 1)), timm_encoder("test_resnet", path, BANDS)
    assert three(eyes[:3]).shape == everything(eyes[:3]).shape and three.hash != everything.hash
    mean, std = (torch.tensor(network.default_cfg[k]).view(-1, 1, 1) for k in ("mean", "std"))
    plain = network.forward_head(network.forward_features((eyes[:3, [7, 3, 1]] - mean) / std), pre_logits=True)
    assert torch.allclose(three(eyes[:3]), plain, rtol=0.02, atol=0.02 * float(plain.std()))  # half precision
    grey = eyes[:1, :1].expand(1, BANDS, SIZE, SIZE)
    assert everything(grey).isfinite().all()
    assert load_encoder(f"test_resnet={path}", WAVELENGTHS).hash == everything.hash


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ConfigError, match="no such network"):
        timm_encoder("resnet_of_nobody", path, BANDS)
    with pytest.raises(InputError, match="no such file"):
        timm_encoder("test_resnet", path, BANDS)
    save_file({"conv1.weight": torch.zeros(4, 3, 3, 3)}, path)
    with pytest.raises(InputError, match="does not hold"):
        timm_encoder("test_resnet", path, BANDS)
    save_file(timm.create_model("test_resnet", in_chans=5).state_dict(), path)
    with pytest.raises(MismatchError, match="other channels"):
        timm_encoder("test_resnet", path, BANDS)


def test_a_backbone_gives_the_features_of_its_own_training(tmp_path: Path, eyes: torch.Tensor) -> None:
    logs = log_reflectance(eyes[:20])
    statistics = BandStatistics(tuple(logs.mean((0, 2, 3)).tolist()), tuple(logs.std((0, 2, 3)).tolist()))
    model = make_backbone("test_resnet", BANDS, SIZE).eval()
    provenance = Provenance.of("b" * 32, ["p7"])
    save_backbone(model, tmp_path, "test_resnet", WAVELENGTHS, SIZE, statistics, provenance, {"method": "simclr"})
    encoder = load_encoder(tmp_path, WAVELENGTHS)
    with torch.no_grad():
        wanted = model(statistics.normalise(logs[:4]))
    assert torch.allclose(encoder(eyes[:4]), wanted, rtol=0.02, atol=0.02 * float(wanted.std()))
    assert (
        encoder.trained_on == provenance and Encoder.restored(encoder.about(), encoder.tensors()).hash == encoder.hash
    )
    with pytest.raises(MismatchError, match="other bands"):
        load_encoder(tmp_path, np.linspace(500, 700, BANDS).tolist())
