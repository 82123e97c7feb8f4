"""Augmentations: keyed per sample, in range, and each does what it is named after and nothing else."""

import numpy as np
import pytest
import torch

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.writer import CohortWriter
from synthgen.cubes.reflectance import log_reflectance
from synthgen.errors import ConfigError, MismatchError
from synthgen.ssl.augment.counter_rng import _GAMMA, _finalise, normals, uniforms
from synthgen.ssl.augment.noise import BANK, add_noise, measured_noise, noise_bank
from synthgen.ssl.augment.pipeline import HIGHEST, Augmentation, Augmenter, Crop
from synthgen.ssl.augment.spectral import mix_bands, shift_matrix, smooth_root
from synthgen.ssl.augment.warp import blur, misregister

NM = tuple(range(450, 901, 30))


@pytest.fixture(scope="module")
def cubes() -> torch.Tensor:
    """Twelve smooth cubes [12, 16, 32, 32] with the level of a fundus, dark outside a round field of view."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0.5, 1.5, (12, 16, 5, 5)).astype(np.float32))
    texture = torch.nn.functional.interpolate(coarse, 32, mode="bicubic", align_corners=True).clamp(0.2, 2)
    level = torch.linspace(0.005, 0.4, 16).view(1, 16, 1, 1)
    at = torch.linspace(-1, 1, 32)
    return texture * level * (at[None] ** 2 + at[:, None] ** 2 < 0.9)


def view(cubes: torch.Tensor, config: Augmentation, step: int = 0, **kept) -> torch.Tensor:
    return Augmenter(config, NM, cubes.shape[-1]).views(cubes, 7, step, torch.arange(len(cubes)), n_views=1, **kept)[0]


def test_splitmix_gives_the_published_sequence():
    """First outputs of SplitMix64 from state 1234567, as in the Java and C reference implementations."""
    state = np.uint64(1234567) + _GAMMA * np.arange(1, 4, dtype=np.uint64)
    assert _finalise(state).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_uniforms_are_uniform_and_every_part_of_the_key_counts():
    table = uniforms(0, 0, np.arange(500), 0, 40)
    assert table.min() >= 0 and table.max() < 1
    assert abs(table.mean() - 0.5) < 0.01 and abs(table.std() - 12**-0.5) < 0.01
    assert np.abs(np.corrcoef(table.T) - np.eye(40)).max() < 0.25
    other = [uniforms(*key, 40) for key in ((1, 0, np.arange(500), 0), (0, 1, np.arange(500), 0),
                                            (0, 0, np.arange(500) + 500, 0), (0, 0, np.arange(500), 1))]  # fmt: skip
    for t in other:
        assert abs(np.corrcoef(t.ravel(), table.ravel())[0, 1]) < 0.03
    z = normals(table[:, :20], table[:, 20:])
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05


@pytest.mark.parametrize("cut", [1, 5])
def test_a_view_does_not_depend_on_the_rest_of_the_batch(cubes, cut):
    """Two processes with a part each make the views of one process with all, bit for bit."""
    augmenter, places = Augmenter(Augmentation(blur=0.5), NM, 32), torch.arange(12)
    crops = [augmenter.whole, augmenter.whole, Crop((0.1, 0.4), 16)]
    whole = augmenter.views(cubes, 3, 11, places, crops=crops)
    first = augmenter.views(cubes[:cut], 3, 11, places[:cut], crops=crops)
    rest = augmenter.views(cubes[cut:], 3, 11, places[cut:], crops=crops)
    for w, a, b in zip(whole, first, rest, strict=True):
        assert torch.equal(w, torch.cat([a, b]))


def test_views_differ_between_views_steps_seeds_and_positions(cubes):
    augmenter, places = Augmenter(Augmentation(), NM, 32), torch.arange(12)
    same = cubes[:1].repeat(12, 1, 1, 1)
    one, two = augmenter.views(same, 0, 0, places)
    others = [two, augmenter.views(same, 0, 1, places)[0], augmenter.views(same, 1, 0, places)[0]]
    assert all((one - o).abs().mean() > 1e-3 for o in others)
    assert all((one[i] - one[j]).abs().mean() > 1e-3 for i in range(12) for j in range(i))
    assert torch.equal(one, augmenter.views(same, 0, 0, places)[0])


def test_views_are_finite_in_range_and_of_the_size_asked_for(cubes):
    strong = Augmentation(gain_max=4.0, spectral_jitter=0.3, shot_noise=0.1, read_noise=0.1, rotation=180, blur=1)
    crops = [Crop((0.4, 1.0), 32), Crop((0.05, 0.3), 16), Crop((1.0, 1.0), 48)]
    views = Augmenter(strong, NM, 32).views(cubes * 2, 0, 0, np.arange(12), crops=crops)
    for v, crop in zip(views, crops, strict=True):
        assert v.shape == (12, 16, crop.size, crop.size) and v.dtype == torch.float32
        assert torch.isfinite(v).all() and v.min() >= 0 and v.max() <= HIGHEST


def test_views_of_half_the_size_are_the_means_of_four_pixels(cubes):
    augmenter = Augmenter(Augmentation.off(view_size=16), NM, 32)
    assert augmenter.size == 16 and augmenter.whole == Crop((1.0, 1.0), 16)
    views = augmenter.views(cubes, 0, 0, np.arange(12))
    torch.testing.assert_close(views[1], torch.nn.functional.avg_pool2d(cubes, 2), atol=2e-6, rtol=0)


def test_no_strength_is_the_identity_and_the_input_is_left_alone(cubes):
    assert torch.equal(view(cubes, Augmentation.off()), cubes)
    before = cubes.clone()
    view(cubes, Augmentation(blur=1, dropout=1))
    view(cubes, Augmentation.off(shot_noise=1e-3, dropout=1))
    assert torch.equal(cubes, before)


def test_flip_alone_mirrors(cubes):
    torch.testing.assert_close(view(cubes, Augmentation.off(flip=1.0)), cubes.flip(3), atol=2e-6, rtol=0)


def test_rotation_keeps_a_round_image():
    at = torch.linspace(-1, 1, 32)
    round_image = torch.exp(-8 * (at[None] ** 2 + at[:, None] ** 2)).expand(4, 16, 32, 32) * 0.3
    torch.testing.assert_close(view(round_image, Augmentation.off(rotation=180)), round_image, atol=0.01, rtol=0)


def test_the_warp_is_shared_by_the_bands(cubes):
    equal = cubes[:, 8:9].expand(-1, 16, -1, -1)
    v = view(equal, Augmentation.off(scale_min=0.4, aspect=4 / 3, flip=0.5, rotation=15.0))
    assert torch.equal(v, v[:, :1].expand_as(v)) and not torch.allclose(v, equal, atol=1e-2)


def test_misregistration_is_exact_at_whole_pixels_and_halfway():
    cube = torch.rand(1, 3, 9, 9)
    shift = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 0.5]]])
    out = misregister(cube, shift)
    assert torch.equal(out[0, 0], cube[0, 0, :8, :8]) and torch.equal(out[0, 1], cube[0, 1, 1:, :8])
    torch.testing.assert_close(out[0, 2], (cube[0, 2, :8, :8] + cube[0, 2, :8, 1:]) / 2)


def test_gain_and_vignette_are_shared_by_the_bands(cubes):
    ones = torch.full((12, 16, 32, 32), 0.3)
    gained = view(ones, Augmentation.off(gain_min=0.7, gain_max=1.4)) / 0.3
    assert torch.allclose(gained, gained[:, :1, :1, :1].expand_as(gained))
    assert gained.min() >= 0.7 - 1e-6 and gained.max() <= 1.4 + 1e-6 and gained[:, 0, 0, 0].std() > 0.1
    shaded = view(ones, Augmentation.off(vignette=0.3)) / 0.3
    assert torch.equal(shaded, shaded[:, :1].expand_as(shaded))
    assert shaded.min() > 0.7 - 1e-6 and shaded.max() <= 1 + 1e-6
    assert shaded.diff(dim=-1).abs().max() < 0.02  # smooth


def test_spectral_jitter_is_smooth_over_wavelength_flat_over_the_image_and_of_its_strength():
    flat = torch.full((2000, 16, 2, 2), 0.2)
    curve = (view(flat, Augmentation.off(spectral_jitter=0.02)) / 0.2).log()
    assert (curve.amax((-2, -1)) - curve.amin((-2, -1))).max() < 1e-6
    curve = curve[..., 0, 0].numpy()
    assert abs(curve.std() - 0.02) < 0.001
    near, far = (np.corrcoef(curve[:, 0], curve[:, k])[0, 1] for k in (1, 8))
    assert near > 0.98 and abs(far - np.exp(-0.5)) < 0.08


def test_smooth_root_has_unit_variance():
    root = smooth_root(np.array(NM, dtype=float), 240.0)
    np.testing.assert_allclose((root @ root.T).diagonal(), 1, atol=1e-9)


def test_wavelength_shift_is_exact_on_a_straight_spectrum():
    straight = torch.arange(1.0, 17.0).view(1, 16, 1, 1).repeat(2, 1, 3, 3)
    moved = mix_bands(straight, torch.from_numpy(shift_matrix(np.array([0.25, -0.5]), 16)).float())[..., 0, 0]
    torch.testing.assert_close(moved[0, :-1], straight[0, :-1, 0, 0] + 0.25)
    torch.testing.assert_close(moved[1, 1:], straight[1, 1:, 0, 0] - 0.5)
    assert moved[0, -1] == 16 and moved[1, 0] == 1  # the end bands are held


def test_lost_bands_are_flat_at_their_own_level_and_dark_outside_the_field_of_view(cubes):
    v = view(cubes, Augmentation.off(dropout=1.0))
    lost = (v != cubes).flatten(2).any(2)
    assert set(lost.sum(1).tolist()) <= {1, 2, 3} and len(set(lost.sum(1).tolist())) > 1
    inside = cubes.mean(1) > 5e-4
    for n, c in lost.nonzero().tolist():
        band = v[n, c]
        assert band[inside[n]].std() < 1e-6 and band[~inside[n]].max() == 0
        before = log_reflectance(cubes[n, c][inside[n]]).mean()
        torch.testing.assert_close(log_reflectance(band[inside[n]]).mean(), before, atol=1e-4, rtol=0)
    share = np.mean([(view(cubes, Augmentation.off(dropout=0.3), s) != cubes).flatten(1).any(1).float().mean()
                     for s in range(60)])  # fmt: skip
    assert abs(share - 0.3) < 0.06


def test_noise_has_the_variance_of_its_model():
    """strength^2 (shot x + read^2), and independent between bands and cubes."""
    bank = noise_bank(64 * 64, torch.device("cpu"))
    given = torch.full((4,), 1e-4), torch.full((4,), 1e-3)
    for level, strength in ((0.1, 1.0), (1e-6, 1.0), (0.4, 0.5)):
        cube = torch.full((8, 4, 64, 64), level)
        offset = torch.from_numpy((uniforms(0, 0, np.arange(8), 0, 4) * BANK).astype(np.int64))
        noise = add_noise(cube.clone(), torch.full((8,), strength), offset, *given, bank) - cube
        expected = strength * (1e-4 * level + 1e-6) ** 0.5
        assert noise.std().item() == pytest.approx(expected, rel=0.02)
        assert noise.mean().abs() < 0.05 * expected
        assert np.abs(np.corrcoef(noise.flatten(0, 1).flatten(1).numpy()) - np.eye(32)).max() < 0.08


def test_outside_of_the_field_of_view_stays_dark(cubes):
    """Everything but geometry and blur, at full strength: what was exactly 0 is still exactly 0."""
    v = view(cubes, Augmentation.off(gain_max=4.0, vignette=0.9, spectral_jitter=0.3, wavelength_shift=1.0,
                                     dropout=1.0, shot_noise=0.1, read_noise=0.01))  # fmt: skip
    outside = (cubes == 0).all(1, keepdim=True).expand_as(cubes)
    assert outside.any() and v[outside].abs().max() == 0 and (v[~outside] != cubes[~outside]).any()


def test_values_below_zero_give_no_nan(cubes):
    """Calibrated reflectance may lie a little below 0."""
    assert torch.isfinite(view(cubes - 0.05, Augmentation(shot_noise=1e-3, blur=1, dropout=1))).all()


def noisy_textures(shot: np.ndarray, read: np.ndarray, n: int = 6, size: int = 64) -> np.ndarray:
    """Textures that the bands share, with known noise: float32 [n, 16, size, size]."""
    rng = np.random.default_rng(2)
    texture = 1 + 0.3 * rng.standard_normal((n, 1, size, size)).clip(-2, 2)
    slope = np.linspace(-1, 1, size)[:, None] * rng.uniform(0.2, 0.8, (n, 1, 1, 1))
    clean = np.geomspace(0.01, 0.3, 16)[:, None, None] * texture * (1 + slope)
    variance = shot[:, None, None] * clean + read[:, None, None] ** 2
    return (clean + np.sqrt(variance) * rng.standard_normal(clean.shape)).clip(1e-4).astype(np.float32)


def test_the_noise_of_each_band_is_measured_under_texture():
    """Texture 20 to 200 times the noise does not count; the noise comes back to 20 %, band by band."""
    shot, read = np.full(16, 1e-5), np.full(16, 1e-4)
    shot[5], read[11] = 4e-5, 5e-3  # two bad bands
    found = measured_noise(noisy_textures(shot, read))
    at = np.geomspace(0.01, 0.3, 16)
    truth, given = shot * at + read**2, np.array(found.shot) * at + np.array(found.read) ** 2
    np.testing.assert_allclose(np.sqrt(given), np.sqrt(truth), rtol=0.2)


def test_measured_noise_is_what_views_get(tmp_path):
    """The band that is noisier in the cohort is noisier in the views, whatever the two numbers of the model say."""
    shot, read = np.full(16, 1e-6), np.full(16, 1e-4)
    read[3] = 2e-3
    with CohortWriter(tmp_path / "c.h5", NM, 64, 64) as writer:
        for i, cube in enumerate(noisy_textures(shot, read)):
            writer.append(cube, f"p{i}")
    config = Augmentation.off(noise="measured", shot_noise=0.1)
    augmenter = Augmenter.of_cohort(config, Cohort.open(tmp_path / "c.h5"), np.arange(6))
    flat = torch.full((40, 16, 64, 64), 0.05)
    added = (augmenter.views(flat, 0, 0, torch.arange(40), n_views=1)[0] - flat).std((0, 2, 3)).numpy()
    expected = np.sqrt((shot * 0.05 + read**2) / 3)  # the strength is drawn evenly from 0 to 1
    np.testing.assert_allclose(added, expected, rtol=0.35)
    with pytest.raises(ConfigError, match="needs cubes to measure"):
        Augmenter(config, NM, 64)


def test_blur_keeps_constants_and_softens_per_cube():
    cube = torch.zeros(2, 3, 15, 15)
    cube[:, :, 7, 7] = 1.0
    soft = blur(cube, torch.tensor([0.3, 1.0]))
    torch.testing.assert_close(soft.sum((-2, -1)), torch.ones(2, 3))
    assert soft[1, 0, 7, 7] < 0.2 < 0.9 < soft[0, 0, 7, 7]
    assert torch.equal(soft[1, 0], soft[1, 0].T)
    torch.testing.assert_close(blur(torch.full((1, 2, 8, 8), 0.3), torch.ones(1)), torch.full((1, 2, 8, 8), 0.3))


def test_what_does_not_fit_is_refused(cubes):
    augmenter = Augmenter(Augmentation(), NM, 32)
    with pytest.raises(MismatchError, match=r"found shape \(12, 8, 32, 32\)"):
        augmenter.views(cubes[:, :8], 0, 0, torch.arange(12))
    with pytest.raises(ValueError, match="positions"):
        augmenter.views(cubes, 0, 0, torch.arange(5))
    with pytest.raises(ConfigError, match="dropout_bands"):
        Augmenter(Augmentation(), NM[:3], 32)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_makes_the_views_of_the_cpu(cubes):
    augmenter, places = Augmenter(Augmentation(blur=0.5), NM, 32), torch.arange(12)
    for a, b in zip(augmenter.views(cubes, 0, 0, places), augmenter.views(cubes.cuda(), 0, 0, places), strict=True):
        torch.testing.assert_close(a, b.cpu(), atol=1e-4, rtol=1e-3)
