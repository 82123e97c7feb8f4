"""The generator beside its peers, timed in turn in one run: `python -m benchmarks.speed.peers`.

diffusers' `UNet2DModel` with its flow Euler scheduler and `VQModel` decoder, the U-Nets matched in parameters;
ancestral DDPM with 300 steps of the same U-Net and that decoder, as Medical Diffusion (Khader et al. 2023) samples;
and vector-quantize-pytorch beside our quantiser.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.common import in_turn, peak_bytes, record
from synthgen.cubes.reflectance import BandStatistics
from synthgen.generator.config import AutoencoderConfig, FlowConfig
from synthgen.generator.flow import Flow
from synthgen.generator.generator import Generator
from synthgen.generator.networks.autoencoder import Autoencoder, base_field
from synthgen.generator.networks.quantizer import Quantiser
from synthgen.generator.samplers import euler, time_grid
from synthgen.generator.training.losses import psnr
from synthgen.runs.processes.device import set_threads

BANDS, DDPM_STEPS = 16, 300
TOKENS, CODES, CODE_DIM = 28_224, 1024, 8  # a 672 cube at compression 4
RATES = (3e-4, 1e-3, 3e-3)  # learning rates; each decoder is given its best
USUAL_WIDTHS = (128, 256, 512, 512)  # of latent diffusion's VQ-GANs, from full size down
DESIGNS = {
    "64 pixels, packaged": {
        "size": 64,
        "compression": 4,
        "channels": 64,
        "multipliers": (1, 2, 3),
        "latent": 32,
        "levels": 6,
        "batch": 16,
    },
    "224 pixels, 8/8/128": {
        "size": 224,
        "compression": 8,
        "channels": 128,
        "multipliers": (1, 2, 4),
        "latent": 8,
        "levels": 1,
        "batch": 2,
    },
}


def measure(device: str = "cpu", designs: tuple[str, ...] = tuple(DESIGNS), steps: int = 50) -> dict:
    """Everything; `steps` of the decoders' training."""
    set_threads()
    found: dict = {"on": torch.cuda.get_device_name() if device == "cuda" else device, "sampling": {}}
    for name in designs:
        found["sampling"][name] = sampling(device=device, **DESIGNS[name])
    found["decoders"] = decoders(device, steps)
    found["quantiser"] = quantisers(device)
    record("peers", found)
    return found


def sampling(
    *,
    size: int,
    compression: int,
    channels: int,
    multipliers: tuple[int, ...],
    latent: int,
    levels: int,
    batch: int,
    device: str = "cpu",
) -> dict:
    """Random weights: ms a cube of one network evaluation, of decoding, and of whole samplings, with their ratios."""
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

    side = size // compression
    torch.manual_seed(0)
    design = AutoencoderConfig(
        bands=BANDS, size=size, compression=compression, latent_channels=latent, levels=levels, base_grid=4
    )
    coder = Autoencoder(design, BandStatistics((0.0,) * BANDS, (1.0,) * BANDS))
    flow = Flow(
        FlowConfig(
            channels=channels, multipliers=multipliers, latent_channels=latent, latent_size=side, bands=BANDS,
            base_grid=4,
        )
    )  # fmt: skip
    net = _diffusers_unet(_parameters(flow), multipliers, latent + BANDS, side)
    coder.quantiser.initialised.fill_(True)
    other = _Decoder(latent, design.halvings)
    for module in (coder, flow, net, other):
        module.eval().requires_grad_(False).to(device)
    state = torch.randn(batch, flow.config.state_numbers, device=device)
    image = torch.randn(batch, latent + BANDS, side, side, device=device)
    t = torch.full((1,), 0.5, device=device)
    field = torch.zeros(batch, BANDS, size, size, device=device)
    layouts = {
        "our U-Net": _quicker_layout(flow, lambda: flow(state, t), device),
        "diffusers U-Net": _quicker_layout(net, lambda: net(image, t).sample, device),
        "our decoder": _quicker_layout(coder, lambda: coder.decode_codes(image[:, :latent], field), device),
        "diffusers decoder": _quicker_layout(other, lambda: other(image[:, :latent]), device),
    }

    def our_decode(x: Tensor) -> Tensor:
        latents, _ = flow.statistics.colour(*flow.split(x))
        return coder.decode_codes(coder.quantiser(latents).values, field)

    def our_sampling(steps: int) -> Tensor:
        velocity = lambda x, time: flow(x, torch.full((1,), time, device=device))
        return our_decode(euler(velocity, state, time_grid(steps)))

    def flow_sampling(steps: int) -> Tensor:
        scheduler, x = FlowMatchEulerDiscreteScheduler(), image
        scheduler.set_timesteps(steps, device=device)
        for time_ in scheduler.timesteps:
            x = scheduler.step(net(x, time_).sample, time_, x).prev_sample
        return other(x[:, :latent])

    def ancestral() -> Tensor:
        scheduler, x = DDPMScheduler(num_train_timesteps=DDPM_STEPS), image
        scheduler.set_timesteps(DDPM_STEPS, device=device)
        for time_ in scheduler.timesteps:
            x = scheduler.step(net(x, time_).sample, time_, x).prev_sample
        return other(x[:, :latent])

    jobs = {
        "our U-Net": lambda: flow(state, t),
        "diffusers U-Net": lambda: net(image, t).sample,
        "our decoder": lambda: our_decode(state),
        "diffusers decoder": lambda: other(image[:, :latent]),
        "ours, 4 steps": lambda: our_sampling(4),
        "ours, 8 steps": lambda: our_sampling(8),
        "diffusers, 8 steps": lambda: flow_sampling(8),
        f"ancestral, {DDPM_STEPS} steps": ancestral,
    }
    with torch.no_grad():
        seconds = in_turn({k: _finished(job, device) for k, job in jobs.items()})
    ms = {k: 1000 * s / batch for k, s in seconds.items()}
    slow = ms[f"ancestral, {DDPM_STEPS} steps"]
    return {
        "parameters": {
            "our U-Net": _parameters(flow),
            "diffusers U-Net": _parameters(net),
            "our decoder": _parameters(coder.decoder),
            "diffusers decoder": _parameters(other),
        },
        "batch": batch,
        "layouts": layouts,
        "ms_a_cube": {k: round(v, 3) for k, v in ms.items()},
        "ratios": {
            "U-Net, diffusers over ours": round(ms["diffusers U-Net"] / ms["our U-Net"], 2),
            "decoder, diffusers over ours": round(ms["diffusers decoder"] / ms["our decoder"], 2),
            "sampling in 8 steps, diffusers over ours": round(ms["diffusers, 8 steps"] / ms["ours, 8 steps"], 2),
            "ancestral over ours in 8 steps": round(slow / ms["ours, 8 steps"], 1),
            "ancestral over ours in 4 steps": round(slow / ms["ours, 4 steps"], 1),
            "ancestral with our U-Net and that decoder over ours in 8 steps, from the figures above": round(
                (DDPM_STEPS * ms["our U-Net"] + ms["diffusers decoder"]) / ms["ours, 8 steps"], 1
            ),
        },
    }


def decoders(device: str, steps: int, batch: int = 4, patients: int = 120) -> dict:
    """Both decoders from random weights on the packaged generator's codes of simulated eyes, L1, the same batches; PSNR
    of the same unseen eyes after equal steps, and ours again after the peer's time.

    Each takes the learning rate that is best for it on eyes that neither learned from, others than those judged on.
    """
    import tempfile
    from pathlib import Path

    from synthgen.cubes.phantom.cohort import simulate_cohort

    generator = Generator.load("phantom64", device)
    coder = generator.autoencoder
    with tempfile.TemporaryDirectory() as folder:
        cubes = torch.from_numpy(simulate_cohort(Path(folder) / "eyes.h5", patients, generator.size, seed=55).cubes())
    cubes = cubes.to(device)
    tokens = generator.encode(cubes)
    latents = coder.from_code(coder.quantiser.decode(tokens.indices))
    x, fields = coder.normalise(cubes), base_field(tokens.base, (generator.size, generator.size))
    chosen_by, judged_on = slice(len(x) - 60, len(x) - 30), slice(len(x) - 30, len(x))

    def train(net: nn.Module, rate: float, steps: int, seconds: float = 0.0) -> dict:
        net.to(device)
        optimiser = torch.optim.AdamW(net.parameters(), rate)
        random, start, made = torch.Generator().manual_seed(0), time.perf_counter(), 0
        while made < steps or time.perf_counter() - start < seconds:
            which = torch.randint(chosen_by.start, (batch,), generator=random)
            loss = (net(latents[which]) + fields[which] - x[which]).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            made += 1
        spent = time.perf_counter() - start
        about = {"parameters": _parameters(net), "learning_rate": rate, "steps": made, "seconds": round(spent, 1)}
        return about | {"chosen_by_db": quality(net, chosen_by), "psnr_db": quality(net, judged_on)}

    @torch.no_grad()
    def quality(net: nn.Module, eyes: slice) -> float:
        reconstructed = coder.denormalise(torch.cat([net(z) for z in latents[eyes].split(batch)]) + fields[eyes])
        return round(float(psnr(cubes[eyes], reconstructed)), 2)

    def ours() -> nn.Module:
        torch.manual_seed(0)
        return Autoencoder(coder.config, coder.statistics).to(device).decoder

    def theirs() -> nn.Module:
        torch.manual_seed(0)
        return _Decoder(coder.config.latent_channels, coder.config.halvings)

    def best(make: Callable[[], nn.Module], steps: int, seconds: float = 0.0) -> dict:
        return max((train(make(), rate, steps, seconds) for rate in RATES), key=lambda run: run["chosen_by_db"])

    peer = best(theirs, steps)
    return {
        "diffusers": peer,
        "ours, equal steps": best(ours, steps),
        "ours, equal time": best(ours, 1, peer["seconds"]),
    }


def quantisers(device: str) -> dict:
    """One training step of the quantiser on 28,224 vectors: milliseconds and memory beyond its inputs, MiB."""
    from vector_quantize_pytorch import VectorQuantize

    vectors = torch.randn(1, CODE_DIM, 168, 168, device=device)
    ours = Quantiser(CODES, CODE_DIM).to(device).train()
    ours.codebook.normal_()
    ours.count.fill_(TOKENS / CODES)
    ours.total.copy_(ours.codebook * (TOKENS / CODES))
    ours.initialised.fill_(True)
    theirs = VectorQuantize(dim=CODE_DIM, codebook_size=CODES, decay=0.95, accept_image_fmap=True).to(device).train()
    jobs = {"ours": lambda: ours(vectors), "vector-quantize-pytorch": lambda: theirs(vectors)}
    seconds = in_turn({k: _finished(job, device) for k, job in jobs.items()}, rounds=5)
    memory = {k: round(peak_bytes(job, device) / 2**20, 1) for k, job in jobs.items()}
    return {"ms": {k: round(1000 * s, 1) for k, s in seconds.items()}, "peak_mib": memory}


@torch.no_grad()
def _quicker_layout(net: nn.Module, job: Callable[[], object], device: str) -> str:
    """Leave the network in the memory layout in which the job is quicker, and name it: each side at its best."""
    seconds = {}
    for name, layout in (("channels first", torch.contiguous_format), ("channels last", torch.channels_last)):
        net.to(memory_format=layout)
        seconds[name] = in_turn({name: _finished(job, device)})[name]
    best = min(seconds, key=lambda name: seconds[name])
    net.to(memory_format=torch.channels_last if best == "channels last" else torch.contiguous_format)
    return best


def _diffusers_unet(parameters: int, multipliers: tuple[int, ...], channels_in: int, side: int) -> nn.Module:
    """diffusers' U-Net of the same levels and attention place whose width comes nearest in parameters."""
    from diffusers import UNet2DModel

    levels = len(multipliers)

    def build(width: int) -> nn.Module:
        return UNet2DModel(
            sample_size=side,
            in_channels=channels_in,
            out_channels=channels_in,
            block_out_channels=tuple(width * m for m in multipliers),
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
            norm_num_groups=8,
        )

    with torch.device("meta"):
        width = min(range(16, 513, 8), key=lambda w: abs(_parameters(build(w)) - parameters))
    # 28-14-7 divides by 4 as the peer's upsampling asks; odd sides would not
    return build(width)


class _Decoder(nn.Module):
    """The decoding half of diffusers' `VQModel` with its usual widths: what `VQModel.decode` runs after the codes."""

    def __init__(self, latent: int, halvings: int):
        super().__init__()
        from diffusers import VQModel

        levels = halvings + 1
        whole = VQModel(
            in_channels=BANDS,
            out_channels=BANDS,
            block_out_channels=USUAL_WIDTHS[:levels],
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=2,
            latent_channels=latent,
            num_vq_embeddings=CODES,
        )
        self.post, self.decoder = whole.post_quant_conv, whole.decoder

    def forward(self, latent: Tensor) -> Tensor:
        return self.decoder(self.post(latent))


def _parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def _finished(job: Callable[[], object], device: str) -> Callable[[], None]:
    def run() -> None:
        job()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=50, help="of the decoders' training")
    args = parser.parse_args()
    measure(args.device, steps=args.steps)


if __name__ == "__main__":
    main()
