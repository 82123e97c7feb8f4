"""What plain measures say of the same sets, with the fixed thresholds that are in use.

Plain FID: the Frechet distance of the features of a small untrained network on three bands (a stand-in for Inception on
RGB, whose weights are not at hand), below 1.5 times what real against real has at 1,000 cubes. AuthPct at least 50 %.
C_T above -3.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.quality.checks import copying_z
from synthgen.quality.gates import Gates
from synthgen.quality.sets.moments import frechet_distance
from synthgen.science.timm_networks import Frozen, seeded_network

RGB = (6, 3, 1)  # bands near 630, 540 and 480 nm
REAL = 1000  # real cubes that fix the threshold
MARGIN = 1.5  # of real against real at that size


class Plain:
    """Generic features [N, 64] of three bands, and the three verdicts."""

    def __init__(self) -> None:
        self.network = Frozen(seeded_network("test_resnet", 3, 64))

    @torch.no_grad()
    def __call__(self, cubes: Tensor) -> np.ndarray:
        shown = cubes[:, list(RGB)] / 0.15  # as bright as a colour picture
        return self.network(shown.clamp(0, 1)).numpy().astype(np.float64)

    def fit(self, gates: Gates, train: Cohort, known: np.ndarray, cache: Path) -> Plain:
        """Features of real cubes to compare with, and the threshold, kept in the cache."""
        path = cache / "plain.npz"
        if not path.exists():
            held = np.setdiff1d(np.arange(len(train)), known)
            features = {name: np.concatenate([self(torch.from_numpy(train.cubes(i))) for i in np.array_split(which, 8)])
                        for name, which in (("train", known), ("held", held))}  # fmt: skip
            rng = np.random.default_rng(0)
            both = np.concatenate([features["train"], features["held"]])
            halves = [rng.permutation(len(both)) for _ in range(20)]
            half = len(both) // 2
            null = [frechet_distance(both[h[:half]], both[h[half : 2 * half]]) for h in halves]
            manifold = gates.instruments.plausibility.tensors["manifold"].float().numpy()
            unseen = gates.reference["encoder"][np.isfinite(gates.reference["score"])]
            np.savez(path, real=both, threshold=MARGIN * np.median(null), manifold=manifold, unseen=unseen[::2][:REAL])
        return self

    def verdicts(self, cache: str | Path, features: np.ndarray, coordinates: np.ndarray) -> list[str]:
        """Names of the plain measures that reject a set: generic features [n, 64], encoder coordinates [n, d]."""
        with np.load(Path(cache) / "plain.npz") as held:
            real, threshold, manifold, unseen = (held[k] for k in ("real", "threshold", "manifold", "unseen"))
        found = ["plain FID"] if frechet_distance(real, features) > threshold else []
        made = coordinates.astype(np.float64)
        near, nearest = KDTree(manifold).query(made)
        own = KDTree(manifold).query(manifold, 2)[0][:, 1]
        if np.mean(near > own[nearest]) < 0.5:  # Alaa 2022: further from the nearest training cube than it from its own
            found.append("plain AuthPct")
        if copying_z(near, KDTree(manifold).query(unseen)[0]) < -3:
            found.append("plain C_T")
        return found


PLAIN = Plain()
