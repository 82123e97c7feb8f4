"""Likeness of pairs: its mean, and the bootstrap over images."""

from __future__ import annotations

import numpy as np
import pytest

from synthgen.quality.sets import metrics


def test_bootstrap_over_images_is_wider_than_over_pairs() -> None:
    """Pairs that share an image are not independent: the naive error is several times too small."""
    rng = np.random.default_rng(0)
    effect = rng.normal(size=40)  # each image's own part in its similarities
    similarity = effect[:, None] + effect[None, :]
    values = similarity[np.triu_indices(40, 1)]
    naive = values.std() / np.sqrt(len(values))
    std = metrics.bootstrap_pairwise(similarity, rng).std()
    assert metrics.mean_pairwise(similarity) == pytest.approx(values.mean())
    assert std > 3 * naive
    assert std == pytest.approx(2 * effect.std() / np.sqrt(40), rel=0.3)
