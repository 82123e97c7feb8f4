"""A trained generator: ids in, tokens and cubes out; the same cube for the same id, whatever is sampled with it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthgen.config import build
from synthgen.contracts import Provenance, Tokens
from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import InputError, MismatchError
from synthgen.generator.config import AutoencoderConfig, FlowConfig
from synthgen.generator.flow import Flow, interpolate
from synthgen.generator.model_card import model_card
from synthgen.generator.networks.autoencoder import Autoencoder, base_field
from synthgen.generator.temperature import follower
from synthgen.generator.tiling import decode_codes
from synthgen.generator.weights import GENERATOR, fill, round_to_half, weights_of
from synthgen.runs.files import atomic, write_text
from synthgen.runs.processes.device import pick_device
from synthgen.runs.randomness import sample_noise

PACKAGED = Path(__file__).parent / "packaged"
CHUNK = 32  # cubes sampled or decoded at once; part of a generator's identity on a device
CACHE_BYTES = 4 * 2**20  # of one layer at full size: what the decoder works on at once on a CPU


class Generator(nn.Module):
    """Autoencoder and flow with what is needed to use them. Made by the trainings, `load` reads it back.

    Args:
        autoencoder, flow: the trained networks (used as they are, put in evaluation mode).
        wavelengths: of the bands, nm.
        provenance: cohort and patients that it learned from.
        chunk: the one batch shape in which everything runs, so that a sample does not depend on its neighbours.
        tile: side in tokens of the tiles that are decoded one after another, which bounds the memory; 0: whole cubes.
        shift: time shift of the sampler's grid, as in training.
        temperature: factor on the noise that latents are sampled from; above 1 where samples vary less than real cubes.
        half: weights are rounded to float16 and stored so.
        made: how it was made (training configurations, figures), for the model card.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        flow: Flow,
        wavelengths: Sequence[float],
        provenance: Provenance,
        *,
        chunk: int = CHUNK,
        tile: int = 0,
        shift: float = 1.0,
        temperature: float = 1.0,
        half: bool = False,
        made: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.autoencoder, self.flow = autoencoder, flow
        self.wavelengths = tuple(float(w) for w in wavelengths)
        self.provenance, self.chunk, self.shift, self.half_weights = provenance, chunk, shift, half
        self.tile, self.temperature, self.made = tile, temperature, made or {}
        self.source: str | None = None  # where it was loaded from: a packaged name or a folder
        self.config = autoencoder.config
        self.bands, self.size, self.base_grid = self.config.bands, self.config.size, self.config.base_grid
        self.token_shape = (self.config.levels, self.config.latent_size, self.config.latent_size)
        if half:
            round_to_half(self.autoencoder)
            round_to_half(self.flow)
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)
        self.hash = GENERATOR.hash_of(self._about(), self._weights())

    def _about(self) -> dict[str, Any]:
        statistics = self.autoencoder.statistics
        return {
            "kind": "generator",
            "autoencoder": self.config.record(),
            "flow": self.flow.config.record(),
            "band_mean": list(statistics.mean),
            "band_std": list(statistics.std),
            "wavelengths_nm": list(self.wavelengths),
            "chunk": self.chunk,
            **({"tile": self.tile} if self.tile else {}),
            "shift": self.shift,
            **({"temperature": self.temperature} if self.temperature != 1 else {}),
            "half": self.half_weights,
            "provenance": self.provenance.model_dump(mode="json"),
            "made": self.made,
        }

    def _weights(self) -> dict[str, dict[str, Tensor]]:
        return {
            "autoencoder": weights_of(self.autoencoder, self.half_weights),
            "flow": weights_of(self.flow, self.half_weights),
        }

    def save(self, folder: str | os.PathLike) -> None:
        """Write config.json, autoencoder.safetensors, flow.safetensors and README.md, all or nothing."""
        about = self._about()
        with atomic(folder) as temporary:
            temporary.mkdir(parents=True)
            found = GENERATOR.write(temporary, about, self._weights())
            write_text(temporary / "README.md", model_card({**about, "hash": found}))

    @staticmethod
    def load(folder_or_name: str | os.PathLike, device: torch.device | str | None = None) -> Generator:
        """Read a generator folder, or a packaged generator by name ("phantom64").

        InputError: no such folder or name, a file missing, damaged or altered.
        """
        folder = Path(folder_or_name)
        if not folder.exists() and (PACKAGED / folder).is_dir():
            folder = PACKAGED / folder
        if not folder.exists():
            names = sorted(p.name for p in PACKAGED.glob("*") if p.is_dir())
            raise InputError("no such generator", path=folder, expected=" or ".join(["a generator folder", *names]))
        about, weights, _ = GENERATOR.read(folder, ("autoencoder", "flow"))
        path = folder / "config.json"
        try:
            statistics = BandStatistics(tuple(about["band_mean"]), tuple(about["band_std"]))
            autoencoder = Autoencoder(build(AutoencoderConfig, about["autoencoder"], path), statistics)
            flow = Flow(build(FlowConfig, about["flow"], path))
            provenance = build(Provenance, about["provenance"], path)
            parts = {k: about[k] for k in ("chunk", "shift", "half", "made")}
            parts |= {"tile": about.get("tile", 0), "temperature": about.get("temperature", 1.0)}
            wavelengths = about["wavelengths_nm"]
        except (KeyError, TypeError) as error:
            raise InputError("the configuration is not complete", path=path, found=f"no {error}") from None
        fill(autoencoder, weights["autoencoder"], folder / "autoencoder.safetensors")
        fill(flow, weights["flow"], folder / "flow.safetensors")
        loaded = Generator(autoencoder, flow, wavelengths, provenance, **parts)
        loaded.source = folder.name if folder.parent == PACKAGED else str(folder.resolve())
        return loaded.to(pick_device(device))

    @property
    def device(self) -> torch.device:
        return self.autoencoder.quantiser.codebook.device

    def compiled(self, **options: Any) -> Generator:
        """This generator with `torch.compile`d networks, whole graphs of one shape; `options` go to `torch.compile`.

        The first chunk takes a minute or so. Cubes differ from those of the plain networks by rounding, and tokens may:
        within one run, keep to one or the other.
        """
        for net in (self.flow.unet, self.autoencoder.decoder):
            net.compile(fullgraph=True, dynamic=False, **options)
        return self

    @torch.no_grad()
    def sample(self, ids: Sequence[int], seed: int, steps: int = 8, sampler: str = "ab2") -> Tokens:
        """The cubes of these ids as tokens, in the order given.

        Args:
            ids: sample ids, any number. seed: with the id it keys the noise.
            steps: time steps (heun evaluates the network twice in each). sampler: euler, heun or ab2.
        """
        ids = [int(i) for i in ids]
        noise = sample_noise(seed, ids, (self.flow.config.state_numbers,)).to(self.device)
        noise[:, : self.flow.config.latent_numbers] *= self.temperature
        indices, base = self._in_chunks(self._denoiser(steps, sampler), noise)
        return Tokens(indices, base, torch.tensor(ids, dtype=torch.int64, device=self.device), self.hash)

    @torch.no_grad()
    def vary(
        self, cubes: Tensor, ids: Sequence[int], seed: int, noise: float = 0.5, steps: int = 8, sampler: str = "ab2"
    ) -> Tokens:
        """Variants of real cubes: noised to a time and sampled back from there (SDEdit, Meng et al. 2022; as views for
        self-supervised learning: MixDiff, WACV 2025).

        Args:
            cubes: reflectance [N, C, H, W]. ids [N]: with the seed they key the noise, and name the variants.
            noise: the time in (0, 1]; small ones stay close to the cube, at 1 nothing is left of it.
            steps, sampler: as in `sample`.
        Raises MismatchError for other bands or another size, ConfigError for times outside.
        """
        self._check(cubes)
        ids = [int(i) for i in ids]
        denoise = self._denoiser(steps, sampler, noise)

        def run(part: Tensor, random: Tensor) -> tuple[Tensor, Tensor]:
            vectors, base = self._latents(part)
            state, time = self.flow.statistics.whiten(vectors, base), random.new_full((1,), noise)
            return denoise(interpolate(state, random, self.flow.times(time))[0] / self.flow.sigma(time))

        random = sample_noise(seed, ids, (self.flow.config.state_numbers,)).to(self.device)
        indices, base = self._in_chunks(run, cubes.to(self.device, torch.float32), random)
        return Tokens(indices, base, torch.tensor(ids, dtype=torch.int64, device=self.device), self.hash)

    def _denoiser(self, steps: int, sampler: str, start: float = 1.0) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """From scaled states y [N, S] at time `start` to code indices and base spectra."""
        follow = follower(self.flow, steps, sampler, self.shift, start)

        def run(y: Tensor) -> tuple[Tensor, Tensor]:
            latents, base = self.flow.statistics.colour(*self.flow.split(follow(y)))
            return self.autoencoder.quantiser(latents).indices.int(), base.half()

        return run

    @torch.no_grad()
    def decode(self, tokens: Tokens) -> Tensor:
        """Tokens -> reflectance float32 [N, C, H, W] in [0, 1]. MismatchError for another generator's tokens."""
        if tokens.generator_hash != self.hash:
            raise MismatchError(
                "tokens of another generator",
                found=tokens.generator_hash,
                expected=self.hash,
                remedy="decode them with the generator that made them",
            )

        def few(indices: Tensor, base: Tensor) -> Tensor:
            values = self.autoencoder.quantiser.decode(indices)
            x = decode_codes(self.autoencoder, values, base_field(base, (self.size, self.size)), self.tile)
            return self.autoencoder.denormalise(x).contiguous()

        def run(indices: Tensor, base: Tensor) -> tuple[Tensor]:
            return (torch.cat([few(*part) for part in zip(indices.split(group), base.split(group), strict=True)]),)

        group = self.chunk if self.device.type != "cpu" else math.gcd(self.chunk, self._cached)
        return self._in_chunks(run, tokens.indices.to(self.device), tokens.base.to(self.device))[0]

    @property
    def _cached(self) -> int:
        """Cubes that the decoder can work on within a CPU's cache: a power of 2."""
        each = 4 * self.autoencoder.config.decoder_channels * self.size**2
        return 1 << max(0, (CACHE_BYTES // each).bit_length() - 1)

    @torch.no_grad()
    def encode(self, cubes: Tensor) -> Tokens:
        """Real cubes, reflectance [N, C, H, W] -> tokens with id -1. MismatchError for other bands or another size."""
        self._check(cubes)

        def run(part: Tensor) -> tuple[Tensor, Tensor]:
            vectors, base = self._latents(part)
            return self.autoencoder.quantiser(vectors).indices.int(), base

        indices, base = self._in_chunks(run, cubes.to(self.device, torch.float32))
        return Tokens(indices, base, torch.full((len(cubes),), -1, device=self.device), self.hash)

    def _latents(self, cubes: Tensor) -> tuple[Tensor, Tensor]:
        """Code vectors before quantisation and base spectra of reflectance cubes."""
        x = self.autoencoder.normalise(cubes)
        base = self.autoencoder.base(x)
        return self.autoencoder.code_vectors(x - base_field(base, (self.size, self.size))), base

    def _check(self, cubes: Tensor) -> None:
        if tuple(cubes.shape[1:]) != (self.bands, self.size, self.size):
            raise MismatchError(
                "cubes do not fit the generator",
                found="x".join(map(str, cubes.shape[1:])),
                expected=f"{self.bands}x{self.size}x{self.size}",
            )

    def _in_chunks(self, run: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> list[Tensor]:
        """Apply `run` to chunks of the inputs, the last one padded with its first row: one shape whatever N is."""
        parts: list[tuple[Tensor, ...]] = []
        n = len(inputs[0])
        with torch.autocast(self.device.type, enabled=False):
            for start in range(0, max(n, 1), self.chunk):
                pieces = [x[start : start + self.chunk] for x in inputs]
                if n == 0:  # one idle chunk tells the shapes of nothing
                    pieces = [x.new_zeros((1, *x.shape[1:])) for x in inputs]
                missing = self.chunk - len(pieces[0])
                padded = [torch.cat([p, p[:1].expand(missing, *p.shape[1:])]) for p in pieces]
                parts.append(tuple(out[: min(self.chunk, n - start)] for out in run(*padded)))
        return [torch.cat(column) for column in zip(*parts, strict=True)]
