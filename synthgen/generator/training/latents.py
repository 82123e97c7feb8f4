"""The training set as latents, encoded once: both orientations of every cube, since a flipped eye is its fellow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from synthgen.errors import InputError
from synthgen.generator.networks.autoencoder import Autoencoder, base_field
from synthgen.generator.training.cube_source import CubeSource
from synthgen.runs.progress import progress
from synthgen.runs.state import load_state, save_state


class Latents(NamedTuple):
    """vectors float32 [2n, K, h, w], code vectors before quantisation; base float32 [2n, C, G, G]; odd: flipped."""

    vectors: Tensor
    base: Tensor


@torch.no_grad()
def encode_both_ways(model: Autoencoder, source: CubeSource, show: bool = True, batch: int = 16) -> Latents:
    """Encode every cube of `source` as it is and mirrored left to right, on the model's device; results on the CPU."""
    device = model.quantiser.codebook.device
    vectors, bases = [], []
    with progress("encoding", len(source), "cube", show=show) as bar:
        for start in range(0, len(source), batch):
            x = source[np.arange(start, min(start + batch, len(source)))].to(device)
            both = torch.stack([x, x.flip(-1)], 1).flatten(0, 1)
            base = model.base(both)
            residual = both - base_field(base, (both.shape[-2], both.shape[-1]))
            vectors.append(model.code_vectors(residual).float().cpu())
            bases.append(base.float().cpu())
            bar.advance(len(x))
    # One memory order, computed or read back, so that sums over them round alike.
    return Latents(torch.cat(vectors).contiguous(), torch.cat(bases).contiguous())


def cached_latents(path: Path, key: str, model: Autoencoder, source: CubeSource, *, main: bool) -> Latents:
    """The latents in the file `path` if they carry this key (autoencoder, cohort, cubes); else encoded, then written.

    Only the main process writes. A damaged cache, or one of another generator, is written anew.
    """
    if path.exists():
        try:
            state = load_state(path)
            if state["key"] == key:
                return Latents(state["vectors"], state["base"])
        except (InputError, KeyError, TypeError):
            pass
    latents = encode_both_ways(model, source, show=main)
    if main:
        temporary = path.with_name(f".{path.name}.partial")
        save_state(temporary, {"key": key, "vectors": latents.vectors, "base": latents.base})
        os.replace(temporary, path)
    return latents
