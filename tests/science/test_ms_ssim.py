"""MS-SSIM: the scales that fit, of every pair as piq has it of one, and 1 for equal images."""

import numpy as np
import piq
import pytest
import torch

from synthgen.science.ms_ssim import ms_ssim, scales_that_fit, similarity_matrix


@pytest.mark.parametrize(
    ("side", "scales"), [(10, 0), (11, 1), (32, 2), (64, 3), (81, 4), (160, 4), (161, 5), (224, 5), (672, 5)]
)
def test_scales_that_fit(side: int, scales: int) -> None:
    assert scales_that_fit(side) == scales


def images(size: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(size)
    smooth = torch.nn.functional.interpolate(torch.rand(4, 3, 9, 9, generator=draw), size=size, mode="bilinear")
    return (0.8 * smooth + 0.2 * torch.rand(4, 3, size, size, generator=draw)).clamp(0, 1)


@pytest.mark.parametrize(("size", "scales"), [(24, 2), (64, 3), (101, 4), (224, 5)])
def test_every_pair_equals_piq(size: int, scales: int) -> None:
    some = images(size)
    i, j = np.triu_indices(4, 1)
    published = torch.tensor((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)[:scales])
    theirs = piq.multi_scale_ssim(
        some[i], some[j], data_range=1.0, reduction="none", scale_weights=published if scales < 5 else None
    )
    found = similarity_matrix(some)
    assert np.allclose(found[i, j], theirs.numpy(), atol=1e-4)
    assert (found == found.T).all() and (np.diag(found) == 0).all()
    assert float(ms_ssim(some[i], some[j])) == pytest.approx(float(theirs.mean()), abs=1e-4)


def test_of_an_image_with_itself_it_is_one() -> None:
    same = images(64)[:1].repeat(3, 1, 1, 1)
    assert np.allclose(similarity_matrix(same) + np.eye(3), 1, atol=1e-5)
    assert float(ms_ssim(same, same)) == pytest.approx(1, abs=1e-5)


def test_too_small_an_image_is_refused() -> None:
    for call in (similarity_matrix, lambda x: ms_ssim(x, x)):
        with pytest.raises(ValueError, match="smaller than the SSIM window"):
            call(torch.rand(2, 1, 8, 8))
