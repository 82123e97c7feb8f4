"""The loss on the mean spectra of structures."""

import numpy as np
import pytest
import torch

from synthgen.generator.training.structure_spectra import (
    ALONE,
    DIFFERENCES,
    FEATURES,
    REGIONS,
    StructureError,
    packed,
    regions,
    structure_axes,
    structure_means,
    unpacked,
)

N, BANDS, SIDE = 80, 4, 32


def eyes(seed=0):
    """Eyes with an artery, a vein and a disc whose spectra vary by 1 along the bands' sum and by 0.01 across it."""
    rng = np.random.default_rng(seed)
    masks = {name: np.zeros((N, SIDE, SIDE), bool) for name in ("artery", "vein", "disc", "cup")}
    masks["artery"][:, 4:6, 2:30] = True
    masks["vein"][:, 20:22, 2:30] = True
    masks["disc"][:, 8:18, 8:18] = True
    masks["cup"][:, 11:15, 11:15] = True
    x = np.repeat(rng.normal(size=(N, 1, 1, 1)), BANDS, 1) * np.ones((1, 1, SIDE, SIDE))
    for mask in masks.values():
        own = rng.normal(size=(N, BANDS)) * 0.01 + rng.normal(size=(N, 1))
        x = np.where(mask[:, None], own[:, :, None, None], x)
    return torch.from_numpy(x).float(), masks


def features(name):
    return ALONE.index(name) if name in ALONE else len(ALONE) + DIFFERENCES.index(name)


def test_regions_are_what_their_names_say():
    _, masks = eyes()
    masks["crossing"] = np.zeros((N, SIDE, SIDE), bool)
    masks["crossing"][:, 4:6, 10:12] = True
    found = dict(zip(REGIONS, regions(masks, (N, SIDE, SIDE))[0].numpy(), strict=True))
    assert not (found["artery"] & masks["crossing"][0]).any()
    assert found["core"].sum() == 8 * 8  # a pixel less on each side
    assert (found["cup"] == masks["cup"][0]).all()
    structures = np.logical_or.reduce([m[0] for m in masks.values()])
    assert (found["background"] == ~structures).all()
    for name in ("artery", "vein", "disc"):
        around = found[f"by {name}"]
        assert around.any() and not (around & structures).any()
        rows = np.flatnonzero(around.any(1))
        own = np.flatnonzero(found[name].any(1))
        assert rows.min() >= own.min() - 2 and rows.max() <= own.max() + 2  # 5 % of 32 pixels


def test_packed_regions_come_back():
    found = torch.rand(5, 31, 6, 7) > 0.5
    bits = packed(found)
    assert bits.shape == (5, 1, 6, 7) and bits.dtype == torch.int32
    assert (unpacked(bits, 31) == found).all()
    assert (unpacked(bits.flip(2), 31) == found.flip(2)).all()


def test_vessels_over_the_disc_are_its_own_in_the_whole_core_alone():
    _, masks = eyes()
    masks["vein"][:, 12:14, 2:30] = True
    found = dict(zip(REGIONS, regions(masks, (N, SIDE, SIDE))[0].numpy(), strict=True))
    assert found["whole core"].sum() == 8 * 8 and found["core"].sum() == 8 * 8 - 2 * 8
    assert found["vessels of disc"].sum() == 2 * 10 and not (found["disc"] & found["vessels of disc"]).any()


def test_structures_without_masks_have_no_pixels_and_no_weight():
    x, masks = eyes()
    where = regions({"disc": masks["disc"]}, (N, SIDE, SIDE))
    assert not where[:, REGIONS.index("artery")].any()
    axes = structure_axes([(x, where)])
    assert not axes[features("artery")].any() and axes[features("disc")].any()
    assert StructureError(axes)(x, x + 0.1, where)[0] > 0


def test_means_are_the_means_over_the_pixels():
    x, masks = eyes()
    means, there = structure_means(x, regions(masks, (N, SIDE, SIDE)))
    assert means.shape == (N, FEATURES, BANDS)
    assert [there[:, k].all().item() for k in range(FEATURES)] == [
        k != features("vessels of disc") for k in range(FEATURES)
    ]
    artery, vein = (x[:, :, torch.from_numpy(masks[k][0])].mean(2) for k in ("artery", "vein"))
    torch.testing.assert_close(means[:, features("artery")], artery)
    torch.testing.assert_close(means[:, features(("artery", "vein"))], artery - vein)


def test_an_error_of_one_deviation_counts_the_same_along_a_strong_and_a_weak_axis():
    x, masks = eyes()
    where = regions(masks, (N, SIDE, SIDE))
    axes = structure_axes([(x[:40], where[:40]), (x[40:], where[40:])])
    k = features("artery")
    inverse = torch.linalg.inv(axes[k])
    pixels = where[:, REGIONS.index("artery")][:, None]
    alone = torch.zeros_like(axes)
    alone[k] = axes[k]
    for axis in (0, BANDS - 1):  # the weakest and the strongest
        off = x + pixels * inverse[:, axis].view(1, -1, 1, 1)
        expected = 1 / BANDS  # one deviation along one of the axes
        found = float(StructureError(alone)(x, off, where)[0])
        present = int((structure_means(x, where)[1] & (alone.abs().sum((1, 2)) > 0)).any(0).sum())
        assert present == 1
        assert found == pytest.approx(expected, rel=1e-3), axis


def test_equal_cubes_have_no_error_and_the_gradient_reaches_the_few_pixels():
    x, masks = eyes()
    where = regions(masks, (N, SIDE, SIDE))
    axes = structure_axes([(x, where)])
    assert float(StructureError(axes)(x, x, where)[0]) == 0
    off = (x + 0.01).requires_grad_()
    StructureError(axes)(x, off, where)[0].backward()
    assert off.grad is not None and off.grad.abs().sum() > 0


def test_masks_of_several_sources_are_features_side_by_side():
    x, masks = eyes()
    true = regions(masks, (N, SIDE, SIDE))
    seen = regions({"disc": masks["disc"]}, (N, SIDE, SIDE))
    means, there = structure_means(x, torch.cat([true, seen], 1))
    assert means.shape == (N, 2 * FEATURES, BANDS)
    for part, where in ((means[:, :FEATURES], true), (means[:, FEATURES:], seen)):
        torch.testing.assert_close(part, structure_means(x, where)[0])
    assert there[:, features("artery")].all() and not there[:, FEATURES + features("artery")].any()


@pytest.mark.slow
def test_a_shift_that_all_cubes_share_is_taken_back_and_their_own_errors_are_not_mistaken_for_one():
    """A bias of half a standard deviation under errors of two, learned by the second term alone: it goes."""
    x, masks = eyes()
    where = regions(masks, (N, SIDE, SIDE))
    axes = structure_axes([(x, where)])
    k, keyed = features("artery"), torch.Generator().manual_seed(1)
    alone = torch.zeros_like(axes)
    alone[k] = axes[k]
    weakest = torch.linalg.inv(axes[k])[:, 0].view(1, -1, 1, 1)
    errors, mend = StructureError(alone), torch.zeros(1, requires_grad=True)
    after = []
    for step in range(600):
        some = torch.randint(N, (8,), generator=keyed)
        off = 0.5 + 2 * torch.randn(8, 1, 1, 1, generator=keyed) + mend
        _, common = errors(x[some], x[some] + off * weakest, where[some])
        (gradient,) = torch.autograd.grad(common, mend)
        mend = (mend - 0.02 * gradient).detach().requires_grad_()
        after += [mend.item()] * (step >= 300)
    assert np.mean(after) == pytest.approx(-0.5, abs=0.15)
    assert errors.shift() < 0.5**2 + 2**2 / 8
