"""How well an autoencoder gives back cubes that it does not learn from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from synthgen.generator.networks.autoencoder import Autoencoder, base_field
from synthgen.generator.training.cube_source import CubeSource
from synthgen.generator.training.losses import psnr, spectral_angle


@torch.no_grad()
def evaluate(model: Autoencoder, source: CubeSource) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Real and reconstructed cubes (reflectance, CPU) and the figures of the reconstruction on held-out cubes.

    Perplexity is a fraction of the codes, the mean over levels.
    """
    device = model.quantiser.codebook.device
    training = model.training
    model.eval()
    real, reconstructed, error, index = [], [], [], []
    for start in range(0, len(source), 16):
        x = source[np.arange(start, min(start + 16, len(source)))].to(device)
        out = model(x, base_field(model.base(x), (x.shape[-2], x.shape[-1])))
        real.append(model.denormalise(x).cpu())
        reconstructed.append(model.denormalise(out.x.float()).cpu())
        error.append((out.x - x).abs().mean((1, 2, 3)).cpu())
        index.append(out.quantised.indices.transpose(0, 1).flatten(1).cpu())
    model.train(training)
    cubes, others = torch.cat(real), torch.cat(reconstructed)
    chosen = torch.cat(index, 1)
    shares = [torch.bincount(level, minlength=model.config.codes) / chosen.shape[1] for level in chosen]
    perplexities = [float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum())) for share in shares]
    return (
        cubes,
        others,
        {
            "validation_l1": float(torch.cat(error).mean()),
            "spectral_angle_deg": float(spectral_angle(cubes, others).mean()),
            "psnr_db": float(psnr(cubes, others)),
            "validation_perplexity": sum(perplexities) / len(perplexities) / model.config.codes,
        },
    )
