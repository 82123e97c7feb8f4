"""One segmenter finds arteries, veins and the optic disc, in real and in synthetic cubes alike.

Synthetic cubes carry no masks; comparing spectra per structure needs the same eyes on both sides. The packaged one was
trained on phantoms under strong spectral and spatial variation (`segment_training`); a cohort with masks of its own
can adapt it (`fine_tune`).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthgen.contracts import content_hash
from synthgen.cubes.wavelengths import checked, resampling_matrix, same_wavelengths
from synthgen.errors import InputError, MismatchError
from synthgen.quality.features.handcrafted import filled_logs
from synthgen.quality.segmenter.network import STRIDE, Network, build, folded, normalised
from synthgen.runs.files import atomic
from synthgen.runs.guard import OTHER_SEED, StepGuard
from synthgen.runs.randomness import stream
from synthgen.science.schedules import polynomial, set_learning_rate, warm_up
from synthgen.science.weight_folders import FolderKind, Weights, named

STRUCTURES = ("artery", "vein", "disc")
CONFIDENT = 0.7  # a pixel is the structure above this probability, not it below 1 - CONFIDENT, uncertain between
SIZES, SMALL_UP_TO = (64, 224), 112  # the two scales that it was trained at, and the largest side seen at the first
PACKAGED = Path(__file__).parents[1] / "packaged" / "segmenter"
STEM = "segmenter"  # of the file of its weights
_CHUNK_PIXELS = 64 * 64 * 64  # of a chunk of cubes: more do not run faster and need more memory
_WIDEST_GAP = 3  # of the cubes' bands, in spacings of the segmenter's: beyond it haemoglobin's double peak is lost
_COVERED = {"artery": 0.3, "vein": 0.3, "disc": 0.5}  # least fraction of a pixel, as the phantom's
_CROP, _BATCH, _RATE = 96, 4, 5e-4  # of fine-tuning: many small steps learn more than few large ones


def _digest(about: Mapping[str, Any], weights: Weights) -> str:
    return content_hash(repr(sorted(about.items())), *named(weights[STEM]))


SEGMENTER = FolderKind("a segmenter folder", "segmenter.json", _digest, "copy the whole folder again")


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network with the bands that it reads. Every weight is exact in half precision, so storing loses nothing.

    wavelengths: nm. std: of centred log-reflectance over its training cubes, per band. made: how, for the record.
    """

    network: nn.Module
    shape: Network
    wavelengths: tuple[float, ...]
    std: tuple[float, ...]
    structures: tuple[str, ...]
    made: dict[str, Any]

    @cached_property
    def hash(self) -> str:
        """Of settings and weights, 32 hex digits."""
        return SEGMENTER.hash_of(self.about(), {STEM: self.tensors()})

    def unreadable(self, wavelengths: Sequence[float]) -> str | None:
        """Why the structures of cubes with these bands (nm) cannot be certified, in words; None where they can."""
        have, want = np.asarray(checked(wavelengths)), np.asarray(self.wavelengths)
        first, last = want[1] - want[0], want[-1] - want[-2]
        if have[0] > want[0] + first / 2 or have[-1] < want[-1] - last / 2:
            return (
                f"cannot certify structures: the cubes' bands span {have[0]:g}-{have[-1]:g} nm, "
                f"the segmenter needs {want[0]:g}-{want[-1]:g} nm"
            )
        within = have[(have >= want[0] - first) & (have <= want[-1] + last)]
        widest = float(np.diff(within).max(initial=0))
        allowed = _WIDEST_GAP * float(np.diff(want).max())
        if len(within) < 2 or widest > allowed:
            return (
                f"cannot certify structures: the cubes' bands lie up to {widest:g} nm apart, "
                f"the segmenter needs them within {allowed:g} nm"
            )
        return None

    @torch.no_grad()
    def probabilities(self, cubes: Tensor, wavelengths: Sequence[float]) -> Tensor:
        """Probability of each of `structures` at each pixel, float32 [N, 3, H, W] in 0..1, on the cubes' device.

        Args:
            cubes: float32 [N, C, H, W] reflectance, H and W at least 16. wavelengths: their C bands in nm.

        Raises MismatchError when the bands are not readable (see `unreadable`) or not C in number.
        """
        bands = self._bands(cubes, wavelengths)
        height, width = cubes.shape[-2:]
        size, seen = (height, width), _seen_at((height, width))
        each = max(1, _CHUNK_PIXELS // (seen[0] * seen[1]))
        found = [_resized(self._logits(block, bands, seen).sigmoid(), size) for block in cubes.split(each)]
        return torch.cat(found) if found else cubes.new_zeros(0, len(self.structures), *size)

    def inputs(self, cubes: Tensor, bands: Tensor | None, size: tuple[int, int]) -> Tensor:
        """What the network reads: centred, normalised log-reflectance [N, bands, *size] of cubes at its bands."""
        if bands is not None:
            cubes = torch.einsum("tc,nchw->nthw", bands, cubes)
        logs = filled_logs(_resized(cubes, size))
        return normalised(logs.filled - logs.mean[:, :, None, None], torch.tensor(self.std, device=cubes.device))

    def _logits(self, cubes: Tensor, bands: Tensor | None, size: tuple[int, int]) -> Tensor:
        return self.network(self.inputs(cubes, bands, size)).float()

    def _bands(self, cubes: Tensor, wavelengths: Sequence[float]) -> Tensor | None:
        """Weights [bands, C] that make the segmenter's bands; None where they are the cubes' own."""
        if cubes.shape[1] != len(wavelengths):
            raise MismatchError(
                "wrong number of wavelengths for cubes", found=len(wavelengths), expected=cubes.shape[1]
            )
        if same_wavelengths(wavelengths, self.wavelengths):
            return None
        reason = self.unreadable(wavelengths)
        if reason is not None:
            raise MismatchError(reason)
        target = np.clip(self.wavelengths, wavelengths[0], wavelengths[-1])  # the outermost stand in beyond their range
        rows = [resampling_matrix(wavelengths, [nm], _spacing(self.wavelengths)) for nm in target]
        return torch.tensor(np.concatenate(rows), dtype=torch.float32, device=cubes.device)

    def to(self, device: torch.device | str) -> Segmenter:
        """The same on another device."""
        network = copy.deepcopy(self.network).to(device)
        return Segmenter(network, self.shape, self.wavelengths, self.std, self.structures, self.made)

    def about(self) -> dict[str, Any]:
        """Everything but the weights, as JSON."""
        return {
            "network": self.shape.model_dump(mode="json"),
            "wavelengths_nm": list(self.wavelengths),
            "deviation": list(self.std),
            "structures": list(self.structures),
            "made": self.made,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The weights, float16 on the CPU."""
        return {name: t.detach().half().cpu().contiguous() for name, t in self.network.state_dict().items()}

    @staticmethod
    def restored(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Segmenter:
        """From `about` and `tensors`. Raises KeyError, ValueError or RuntimeError when they do not belong together."""
        shape = Network.model_validate(about["network"])
        network = folded(build(shape).eval())
        network.load_state_dict({name: t.float() for name, t in tensors.items()})
        return Segmenter(
            _frozen(network),
            shape,
            tuple(about["wavelengths_nm"]),
            tuple(about["deviation"]),
            tuple(about["structures"]),
            dict(about["made"]),
        )


def load_segmenter(
    folder_or_name: str | os.PathLike = "phantom", device: torch.device | str | None = None
) -> Segmenter:
    """A segmenter from its folder, or the packaged one ("phantom").

    Raises InputError when files are missing, damaged or altered.
    """
    folder = Path(folder_or_name)
    if not folder.is_dir() and str(folder_or_name) == "phantom":
        folder = PACKAGED
    about, weights, _ = SEGMENTER.read(folder, (STEM,))
    try:
        segmenter = Segmenter.restored(about, weights[STEM])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        found = str(error).splitlines()[0][:200]
        raise InputError("is not a segmenter, or of another version", path=folder, found=found) from None
    return segmenter if device is None else segmenter.to(device)


def save_segmenter(folder: str | os.PathLike, segmenter: Segmenter) -> None:
    """Write segmenter.json (with the hash) and segmenter.safetensors (half precision), atomically."""
    with atomic(folder) as partial:
        partial.mkdir()
        SEGMENTER.write(partial, segmenter.about(), {STEM: segmenter.tensors()})


def packed(network: nn.Module, shape: Network, wavelengths, std, structures, made: dict[str, Any]) -> Segmenter:
    """A segmenter of a trained network (left as it is): norms folded, weights rounded to half precision."""
    plain = folded(copy.deepcopy(network).eval())
    return Segmenter(
        _frozen(plain), shape, tuple(map(float, wavelengths)), tuple(map(float, std)), tuple(structures), made
    )


def fine_tune(
    segmenter: Segmenter,
    cubes: Tensor | np.ndarray,
    masks: Mapping[str, np.ndarray],
    wavelengths: Sequence[float],
    *,
    steps: int = 200,
    seed: int = 0,
    device: torch.device | str | None = None,
    on_step: Callable[[float], None] = lambda loss: None,
) -> Segmenter:
    """Adapt to a cohort by small steps on its own masks; without steps or masks it is returned as it is.

    Args:
        cubes: float32 [N, C, H, W] reflectance. masks: bool [N, H, W] by name; a structure without mask is left out of
            the loss.

    Raises MismatchError when the bands cannot be read.
    """
    known = [k for k, name in enumerate(segmenter.structures) if name in masks]
    cubes = torch.as_tensor(cubes, dtype=torch.float32)
    bands = segmenter._bands(cubes, wavelengths)
    if not (known and steps and len(cubes)):
        return segmenter
    device = torch.device(device or "cpu")
    tuned = segmenter.to(device)
    network = tuned.network.requires_grad_(True)
    height, width = cubes.shape[-2:]
    size = _seen_at((height, width))
    draw = stream(seed, "segmenter")
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.0)
    guard = StepGuard("the segmenter", optimiser, (network,), remedy=OTHER_SEED)
    for step in range(steps):
        set_learning_rate(optimiser, _RATE * warm_up(step, steps / 10) * polynomial(step / steps, 1))
        rows = torch.randint(len(cubes), (min(_BATCH, len(cubes)),), generator=draw)
        x = segmenter.inputs(cubes[rows], bands, size)
        y = torch.stack(
            [_at_size(masks[segmenter.structures[k]], rows, size, segmenter.structures[k]) for k in known], 1
        )
        x, y = _varied(x, y, draw)
        logits = network(x.to(device, memory_format=torch.channels_last)).float()[:, known]
        on_step(guard(step, segmentation_loss(logits, y.to(device))).loss)
    made = {**segmenter.made, "fine_tuned": {"cubes": len(cubes), "steps": steps, "seed": seed}}
    made["fine_tuned"]["structures"] = [segmenter.structures[k] for k in known]
    return Segmenter(
        _frozen(network), segmenter.shape, segmenter.wavelengths, segmenter.std, segmenter.structures, made
    )


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus Dice (Milletari 2016): vessels are a few per cent of the pixels. [N, K, H, W] each."""
    p = logits.sigmoid()
    overlap = (2 * (p * target).sum((0, 2, 3)) + 1) / (p.sum((0, 2, 3)) + target.sum((0, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + 0.5 * (1 - overlap.mean())


def dice(found: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Dice coefficient of each structure over all pixels of a set; NaN where neither has any."""
    scores = {}
    for name in STRUCTURES:
        if name in truth:
            both = np.logical_and(found[name], truth[name]).sum()
            total = found[name].sum() + truth[name].sum()
            scores[name] = float(2 * both / total) if total else float("nan")
    return scores


def _at_size(mask: np.ndarray, rows: Tensor, size: tuple[int, int], name: str) -> Tensor:
    part = torch.from_numpy(np.asarray(mask)[rows.numpy()].astype(np.float32))[:, None]
    return (_resized(part, size) >= _COVERED[name]).float()[:, 0]


def _varied(x: Tensor, y: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crop, flips and transposition for the batch; smooth spectral jitter and noise for each cube."""
    n, bands, height, width = x.shape
    side = min(height, width, _CROP)
    top = int(torch.randint(height - side + 1, (1,), generator=draw))
    left = int(torch.randint(width - side + 1, (1,), generator=draw))
    x, y = (part[:, :, top : top + side, left : left + side] for part in (x, y))
    for flip, dims in zip((torch.rand(3, generator=draw) < 0.5).tolist(), ([2], [3], None), strict=True):
        if flip:
            x, y = (part.flip(dims) if dims else part.transpose(2, 3) for part in (x, y))
    scale = torch.exp(0.15 * torch.randn((n, 1, 1, 1), generator=draw))
    noise = 0.05 * torch.randn(x.shape, generator=draw)
    return x * scale + 0.05 * torch.randn((n, bands, 1, 1), generator=draw) + noise, y


def _seen_at(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns at which cubes of a size are seen: the longer side at 64 or 224, the other in proportion."""
    target = SIZES[0] if max(size) <= SMALL_UP_TO else SIZES[1]
    rows, columns = (max(STRIDE, round(side * target / max(size) / STRIDE) * STRIDE) for side in size)
    return rows, columns


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, with the area of a pixel taken into account where it shrinks."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def _spacing(wavelengths: Sequence[float]) -> float:
    return float(np.diff(wavelengths).mean())


def _frozen(network: nn.Module) -> nn.Module:
    """For use: half-precision values in float32, channels last, no gradients."""
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
