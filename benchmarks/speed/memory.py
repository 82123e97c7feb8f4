"""Memory and work of the recipes, computed on shapes alone (no device needed): `python -m benchmarks.speed.memory`.

Counted, not measured: weights, gradients, Adam's moments, the averaged and the best weights; what autograd keeps of one
cube, in bfloat16; floating-point operations of sampling. What the allocator adds is not in it: `benchmarks.speed.sizes`
measures that where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import ROOT
from benchmarks.common import record
from synthgen.config import load
from synthgen.cubes.reflectance import BandStatistics
from synthgen.generator.config import AutoencoderConfig, AutoencoderDesign, FlowConfig, FlowDesign
from synthgen.generator.flow import Flow
from synthgen.generator.networks.autoencoder import Autoencoder
from synthgen.generator.training.autoencoder import AutoencoderTraining
from synthgen.integration.recipe import GeneratorTraining

BANDS, EVALUATIONS = 16, 8
WIDTHS = (128, 256, 512)
CARDS_GB = (12, 24, 48, 80)
USABLE = 0.85  # of a card's memory: context, fragments and workspaces take the rest
FLOW_BYTES = 4 + 4 + 8 + 4 + 4  # a parameter: weight, gradient, two moments, average, best average, all float32
CODER_BYTES = 4 + 4 + 8


def measure() -> dict:
    """Every width at 224 and 672; recorded."""
    found = {}
    for size in (224, 672):
        recipe = load(GeneratorTraining, ROOT / "configs" / f"retina{size}.yaml")
        found[f"{size}, autoencoder"] = autoencoder(recipe.autoencoder, size)
        for width in WIDTHS:
            found[f"{size}, flow of {width}"] = flow(recipe, size, width)
    record("memory", {"how": "computed on shapes, activations in bfloat16", **found})
    return found


def autoencoder(training: AutoencoderTraining, size: int) -> dict:
    """The training on the recipe's crops, and decoding one whole cube."""
    with torch.device("meta"):
        coder = _coder(training, size)
        side = training.crop or size
        kept = _kept(coder, lambda: coder.decoder(coder.encoder(torch.randn(1, BANDS, side, side))))
        latent = torch.randn(1, training.latent_channels, size // training.compression, size // training.compression)
        work = _flops(lambda: coder.decoder(latent))
    fixed = CODER_BYTES * _parameters(coder)
    return {
        "parameters": _parameters(coder),
        "crop": side,
        "GFLOP to decode a cube": round(work / 1e9, 1),
        **_fits(fixed, kept),
    }


def flow(recipe: GeneratorTraining, size: int, width: int) -> dict:
    """The training of the flow, and one sample of 8 evaluations."""
    shape = recipe.diffusion.model_dump(include=set(FlowDesign.model_fields)) | {"channels": width}
    a = recipe.autoencoder
    config = FlowConfig(
        latent_channels=min(a.latent_channels, a.code_dim), latent_size=size // a.compression, bands=BANDS,
        base_grid=a.base_grid, **shape,
    )  # fmt: skip
    with torch.device("meta"):
        net = Flow(config)
        state, t = torch.randn(1, config.state_numbers), torch.rand(1)
        kept = _kept(net, lambda: net(state, t))
        work = _flops(lambda: net(state, t))
    return {
        "parameters": _parameters(net),
        "TFLOP to sample a cube in 8 evaluations": round(EVALUATIONS * work / 1e12, 3),
        **_fits(FLOW_BYTES * _parameters(net), kept),
    }


def _coder(training: AutoencoderTraining, size: int) -> Autoencoder:
    design = training.model_dump(include=set(AutoencoderDesign.model_fields))
    statistics = BandStatistics((0.0,) * BANDS, (1.0,) * BANDS)
    return Autoencoder(AutoencoderConfig(bands=BANDS, size=size, **design), statistics)


def _fits(fixed: float, each: float) -> dict:
    batches = {f"{gb} GB": max(0, int((USABLE * gb * 1e9 - fixed) // each)) for gb in CARDS_GB}
    return {
        "GB before the first cube": round(fixed / 1e9, 2),
        "GB for each cube of a batch": round(each / 1e9, 3),
        "largest batch on a card of": batches,
    }


def _kept(net: torch.nn.Module, job: Callable[[], object]) -> float:
    """Bytes that autograd keeps for the backward pass of one job, weights left out, as bfloat16."""
    weights = {p.untyped_storage()._cdata for p in net.parameters()}
    seen: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage()._cdata not in weights:
            seen[x.untyped_storage()._cdata] = x  # held, so that its address is not used again
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        job()
    return sum(x.untyped_storage().nbytes() for x in seen.values()) / 2


def _flops(job: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        job()
    return counter.get_total_flops()


def _parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


if __name__ == "__main__":
    measure()
