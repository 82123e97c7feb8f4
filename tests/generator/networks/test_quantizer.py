"""k-means and the quantiser against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from synthgen.errors import ConfigError
from synthgen.generator.networks.kmeans import lloyd, nearest, seed_centroids
from synthgen.generator.networks.quantizer import Quantiser


def clusters(n: int = 400, k: int = 8, dim: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(k, dim, generator=random)
    return centres, centres[torch.arange(n) % k] + 0.1 * torch.randn(n, dim, generator=random)


def test_nearest_is_the_brute_force_minimum_in_any_chunk_size():
    random = torch.Generator().manual_seed(1)
    points, codes = torch.randn(1000, 8, generator=random), torch.randn(64, 8, generator=random)
    expected = torch.cdist(points, codes).argmin(1)
    assert torch.equal(nearest(points, codes), expected)
    assert torch.equal(nearest(points, codes, max_bytes=7 * 64 * 4), expected)


def test_the_search_of_a_large_cube_takes_little_memory():
    """28,224 tokens (672 pixels at compression 4) beside 1024 codes: at most 64 MB beyond input and result."""
    points, codes = torch.randn(28_224, 8), torch.randn(1024, 8)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        nearest(points, codes)
    held = most = 0
    for event in sorted(measured.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert 0 < most <= 64e6


def test_kmeans_finds_separated_clusters():
    centres, points = clusters()
    found, counts = lloyd(points, seed_centroids(points, 8, torch.Generator().manual_seed(0)), 10)
    assert torch.cdist(centres, found).min(1).values.max() < 0.1
    assert counts.tolist() == [50.0] * 8


def fitted(levels: int = 1, codes: int = 16) -> tuple[Quantiser, torch.Tensor]:
    torch.manual_seed(0)
    vectors = torch.randn(4, 4, 8, 8)
    quantiser = Quantiser(codes, 4, levels)
    quantiser.fit(vectors.permute(0, 2, 3, 1).reshape(-1, 4), seed=0, per_step=256, iterations=5)
    return quantiser, vectors


def test_sums_start_as_centroid_times_count():
    quantiser, _ = fitted(2)
    assert torch.allclose(quantiser.total, quantiser.codebook * quantiser.count[..., None])
    assert bool(quantiser.initialised)


@pytest.mark.parametrize("levels", [1, 2])
def test_without_kmeans_codes_start_at_vectors_of_the_pool_with_their_own_counts(levels):
    torch.manual_seed(0)
    pool = torch.randn(200, 4)
    quantiser, other = Quantiser(16, 4, levels), Quantiser(16, 4, levels)
    for q, seed in ((quantiser, 0), (other, 1)):
        q.draw(pool, seed=seed, per_step=50)
    assert (torch.cdist(quantiser.codebook[0], pool).min(1).values == 0).all()
    assert len(quantiser.codebook[0].unique(dim=0)) == 16
    assert not torch.equal(quantiser.codebook, other.codebook)
    assert torch.allclose(quantiser.count.sum(1), torch.full((levels,), 50.0))
    assert torch.allclose(quantiser.total, quantiser.codebook * quantiser.count[..., None])
    kmeans = Quantiser(16, 4, levels)
    kmeans.fit(pool, seed=0, per_step=50, iterations=10)
    vectors = pool.T.reshape(1, 4, 10, 20)
    errors = [float((q.eval()(vectors).values - vectors).square().mean()) for q in (kmeans, quantiser)]
    assert errors[0] < errors[1]


def test_residual_levels_reduce_the_error_and_decode_inverts_the_indices():
    errors = []
    for levels in (1, 2, 3):
        quantiser, vectors = fitted(levels)
        out = quantiser.eval()(vectors)
        assert torch.equal(quantiser.decode(out.indices), out.values)
        errors.append(float((out.values - vectors).square().mean()))
    assert errors[0] > errors[1] > errors[2]


def test_gradients_pass_straight_through():
    quantiser, vectors = fitted()
    vectors.requires_grad_()
    quantiser.train()(vectors).values.sum().backward()
    assert torch.allclose(vectors.grad, torch.ones_like(vectors))


def test_moving_average_follows_its_definition():
    quantiser, vectors = fitted()
    before_count, before_total = quantiser.count.clone(), quantiser.total.clone()
    flat = vectors.permute(0, 2, 3, 1).reshape(-1, 4)
    index = nearest(flat, quantiser.codebook[0])
    quantiser.train()(vectors)
    counts = torch.bincount(index, minlength=16).float()
    sums = torch.zeros(16, 4).index_add_(0, index, flat)
    count, total = 0.95 * before_count[0] + 0.05 * counts, 0.95 * before_total[0] + 0.05 * sums
    assert torch.allclose(quantiser.count[0], count, atol=1e-5)
    assert torch.allclose(quantiser.codebook[0], total / count[:, None], atol=1e-5)


def test_a_dead_code_is_revived_with_its_statistics():
    quantiser, vectors = fitted()
    quantiser.codebook[0, 3] = 1e3
    quantiser.count[0, 3] = 1e-3
    quantiser.total[0, 3] = 1.0
    quantiser.train()(vectors)
    flat = vectors.permute(0, 2, 3, 1).reshape(-1, 4)
    assert int(quantiser.revived) == 1
    assert (flat == quantiser.codebook[0, 3]).all(1).any()  # on a vector of the batch
    assert torch.allclose(quantiser.total[0, 3], quantiser.codebook[0, 3] * quantiser.count[0, 3])
    quantiser(vectors)
    assert int(quantiser.revived) == 1  # and it lives


def test_a_diverged_batch_leaves_the_codes_alone():
    quantiser, vectors = fitted()
    before = quantiser.codebook.clone()
    quantiser.train()(vectors * float("nan"))
    assert torch.equal(quantiser.codebook, before)


def test_before_the_first_fit_vectors_pass_unchanged():
    vectors = torch.randn(2, 4, 3, 3)
    out = Quantiser(8, 4, 2).train()(vectors)
    assert torch.equal(out.values, vectors) and float(out.commitment) == 0 and out.indices.shape == (2, 2, 3, 3)


def test_state_survives_a_state_dict():
    quantiser, vectors = fitted(2)
    quantiser.train()(vectors)
    other = Quantiser(16, 4, 2)
    other.load_state_dict(quantiser.state_dict())
    for _ in range(3):
        quantiser(vectors), other.train()(vectors)
    assert all(torch.equal(a, b) for a, b in zip(quantiser.buffers(), other.buffers(), strict=True))


def test_health_counts_used_codes():
    quantiser, _ = fitted()
    same = quantiser.codebook[0, 5].expand(1, 8, 8, 4).permute(0, 3, 1, 2)
    quantiser.dead_share = 0.0
    quantiser.train()(same.clone())
    health = quantiser.health()
    assert health["codes_used"] == pytest.approx(1 / 16) and health["perplexity"] == pytest.approx(1 / 16)
    quantiser.reset_health()
    assert quantiser.health()["codes_used"] == 0


def test_too_few_vectors_for_the_codes_is_refused():
    with pytest.raises(ConfigError, match="fewer latent vectors than codes"):
        Quantiser(64, 4).fit(torch.randn(63, 4), seed=0, per_step=63, iterations=1)
