"""Painting layered eyes anew at every step, so that a segmenter learns shapes and not one camera's spectra.

Vessels get the absorption of random blood: mostly haemoglobin of arteries and veins as they are, sometimes of one
saturation for both, sometimes exchanged, sometimes any smooth curve. So the spectrum tells arteries from veins often
but never surely, and calibre, reflex and course have to tell as well. Everything is drawn from `draw` alone.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synthgen.cubes.floor import LOG_FLOOR
from synthgen.cubes.phantom.bands import Bands
from synthgen.cubes.phantom.camera import FWHM_NM
from synthgen.cubes.phantom.simulate import COVERED, REFLEX, WAVELENGTHS
from synthgen.cubes.phantom.spectra import PATH_SHARE, path_factor
from synthgen.cubes.phantom.tables import blood_absorption
from synthgen.quality.segmenter.layers import MAPS

# How the blood of an eye's arteries and veins is drawn: fractions of the eyes.
BLOOD = {"true": 0.80, "alike": 0.10, "exchanged": 0.05, "any": 0.05}
_SATURATIONS = np.linspace(0.3, 1.0, 15)
_SMOOTH = 5  # cosines that make a smooth curve over the bands


def paint(layers: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Log-reflectance [N, C, H, W], masks of artery, vein and disc [N, 3, H, W] and the lit pixels bool [N, 1, H, W].

    Args:
        layers: float32 [N, C + 7, H, W], see `segment_eyes.eye_layers`, already of the wanted size.
    """
    bands = layers.shape[1] - len(MAPS)
    artery, artery_depth, vein, vein_depth, reflex, disc, fov = layers[:, bands:].split(1, 1)
    logs = _soft(_faded(layers[:, :bands], disc, draw), draw)
    lit = fov > 0.5
    target = torch.cat([artery >= COVERED, vein >= COVERED, disc >= 0.5], 1) & lit
    logs = logs + _haze(logs, disc, fov, draw) + _spots(logs, draw)
    arterial, venous = _blood(len(logs), draw)
    depth = (vein_depth / vein.clamp_min(1e-3)).clamp_max(0.4)
    logs = logs + torch.log1p(-vein.clamp_max(0.98) * -torch.expm1(-venous[:, :, None, None] * depth))
    depth = (artery_depth / artery.clamp_min(1e-3)).clamp_max(0.4)
    shine = 1 - reflex * _uniform(draw, len(logs), 0, 2 * REFLEX)
    logs = logs + torch.log1p(-artery.clamp_max(0.98) * -torch.expm1(-arterial[:, :, None, None] * depth) * shine)
    return _camera(logs, draw), target.float(), lit


def _blood(n: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Absorption per mm of chord of arteries and veins, [N, C] each."""
    table = _absorption()
    kinds = torch.multinomial(torch.tensor(list(BLOOD.values())), n, replacement=True, generator=draw)[:, None]
    true, _alike, exchanged, free = (kinds == k for k in range(len(BLOOD)))
    high = 0.95 + 0.04 * torch.randn((n, 1), generator=draw)
    low = 0.58 + 0.10 * torch.randn((n, 1), generator=draw)
    of_artery = torch.where(true | free, high, low)
    of_vein = torch.where(exchanged, high, low)
    at = lambda saturation: ((saturation.clamp(0.3, 1) - 0.3) / 0.05).round().long()[:, 0]
    artery, vein = table[at(of_artery)], table[at(of_vein)]
    flat = table.mean(1).mean()
    curve = lambda: flat * (1.0 + 0 * artery) * torch.exp(_curves(n, artery.shape[1], 0.7, draw))
    artery, vein = torch.where(free, curve(), artery), torch.where(free, curve(), vein)
    strength = torch.exp(0.4 * torch.randn((n, 1), generator=draw))  # of both: how much light goes round the vessels
    grey = flat * torch.rand((n, 1), generator=draw) * 0.15
    jitter = torch.exp(_curves(n, artery.shape[1], 0.25, draw))
    own = torch.exp(0.12 * torch.randn((n, 1), generator=draw) + _curves(n, artery.shape[1], 0.06, draw))
    return strength * (artery * jitter + grey) * own, strength * (vein * jitter + grey)


@cache
def _absorption() -> Tensor:
    """2 x absorption per mm of chord, [saturations, C], averaged over the bands: linear in depth."""
    bands = Bands.of(np.asarray(WAVELENGTHS), FWHM_NM)
    rows = [2 * PATH_SHARE * path_factor(bands.nm) * blood_absorption(bands.nm, s) for s in _SATURATIONS]
    return torch.tensor(np.stack([bands.mean(row) for row in rows]), dtype=torch.float32)


def _haze(logs: Tensor, disc: Tensor, fov: Tensor, draw: torch.Generator) -> Tensor:
    """Smooth shadows, coarse and fine texture with spectra of their own, a rim at the aperture, another disc."""
    n, bands, height, width = logs.shape
    fields, spectra = [], []
    for cells, strength in ((4, 0.20), (4, 0.12), (10, 0.08), (height // 4, 0.05), (height // 2, 0.05)):
        amount = strength * torch.rand((n, 1), generator=draw) * 2
        fields.append(_noise(n, cells, (height, width), draw))
        spectra.append(amount * (1 + _curves(n, bands, 0.6, draw)))
    fields.append((1 - _blurred(fov, height // 12)) * 2)
    spectra.append(0.5 * torch.randn((n, 1), generator=draw) + _curves(n, bands, 0.3, draw))
    around, side = _blurred(disc, height // 8), _slope(disc, draw)
    fields += [disc, disc * _noise(n, 12, (height, width), draw), around]
    spectra.append(0.4 * torch.randn((n, 1), generator=draw) + _curves(n, bands, 0.2, draw))
    spectra.append(0.35 * torch.rand((n, 1), generator=draw) + _curves(n, bands, 0.1, draw))  # rim and cup
    spectra.append(0.4 * torch.randn((n, 1), generator=draw) + _curves(n, bands, 0.15, draw))  # tissue around it
    fields += [disc * side, around * (1 - disc) * side.clamp_min(0)]
    spectra.append(0.35 * torch.rand((n, 1), generator=draw) * (1 + _curves(n, bands, 0.4, draw)))  # pale on one side
    sick = (torch.rand((n, 1), generator=draw) < 0.4) * torch.randn((n, 1), generator=draw)
    spectra.append(sick * (1 + _curves(n, bands, 0.4, draw)))  # a crescent, bright or dark
    fields.append(_vignette(n, height, width, draw))
    spectra.append(0.5 * torch.rand((n, 1), generator=draw) * (1 + _curves(n, bands, 0.3, draw)))
    return torch.einsum("nkhw,nkc->nchw", torch.cat(fields, 1), torch.stack(spectra, 1))


def _faded(bare: Tensor, disc: Tensor, draw: torch.Generator) -> Tensor:
    """The bare fundus with another contrast of the disc: from none, when only the vessels tell where it is, to more
    than the phantom's."""
    n = len(bare)
    ring = _blurred(disc, max(4, bare.shape[-1] // 8)) * (1 - disc)
    mean = lambda weight: (bare * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1e-3)
    contrast = mean(disc) - mean(ring)
    kept = torch.rand((n, 1), generator=draw) * 1.15
    faint = torch.rand((n, 1), generator=draw) < 0.15
    kept = torch.where(faint, 0.3 * kept, kept)
    return bare + disc * ((kept - 1) * contrast)[:, :, None, None]


def _slope(disc: Tensor, draw: torch.Generator) -> Tensor:
    """About -1 to 1 across each disc, mostly from side to side, [N, 1, H, W]."""
    n, _, height, width = disc.shape
    rows, columns = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    area = disc.sum((2, 3), keepdim=True).clamp_min(1)
    middle = lambda at: (disc * at).sum((2, 3), keepdim=True) / area
    turned = torch.rand((n, 1, 1, 1), generator=draw) < 0.5
    angle = 0.6 * torch.randn((n, 1, 1, 1), generator=draw) + torch.pi * turned
    along = (columns - middle(columns)) * angle.cos() + (rows - middle(rows)) * angle.sin()
    return (along / (area / torch.pi).sqrt()).clamp(-1.5, 1.5)


def _soft(bare: Tensor, draw: torch.Generator) -> Tensor:
    """The bare fundus, in most eyes blurred: discs have no sharp edge, and texture is painted afterwards."""
    part = (torch.rand((len(bare), 1, 1, 1), generator=draw) * 1.6).clamp_max(1)
    wide = 3 if bare.shape[-1] < 96 else (5, 9, 13)[int(torch.randint(3, (1,), generator=draw))]
    return bare + part * (_blurred(bare, wide) - bare)


def _blurred(images: Tensor, wide: int) -> Tensor:
    """Blurred over about `wide` pixels, by way of a smaller image: large windows would cost as much as the network."""
    size = images.shape[-2:]
    rows, columns = (max(2, 2 * side // wide) for side in size)
    small = F.adaptive_avg_pool2d(images, (rows, columns))
    return F.interpolate(small, size=size, mode="bilinear", align_corners=False)


def _spots(logs: Tensor, draw: torch.Generator) -> Tensor:
    """In half of the eyes: bleedings (dark like blood) and exudates or drusen (bright), of three sizes."""
    n, bands, height, width = logs.shape
    blood = -_absorption()[5][None] / _absorption()[5].max()
    out = torch.zeros(())
    for cells in (5, 11, 22):
        sick = (torch.rand((n, 2, 1, 1), generator=draw) < 0.2).float()
        shape = _noise(2 * n, cells, (height, width), draw).view(n, 2, height, width)
        shape = ((shape - 1.6) * 2).clamp(0, 1) * sick
        dark = blood * torch.rand((n, 1), generator=draw) * 2
        bright = torch.rand((n, 1), generator=draw) * (1 + _curves(n, bands, 0.4, draw))
        out = out + torch.einsum("nkhw,nkc->nchw", shape, torch.stack([dark, bright], 1))
    return out


def _camera(logs: Tensor, draw: torch.Generator) -> Tensor:
    """Blur and a small shift per band, noise that is stronger in the blue, lost bands."""
    n, bands, height, width = logs.shape
    sigma = torch.rand((n, 1), generator=draw).square() * 1.2 * (height / 224) ** 0.3 + 0.15
    sigma = sigma * torch.exp(_curves(n, bands, 0.2, draw))
    shift = 0.12 * torch.randn((2, n, bands), generator=draw) * (height / 64) ** 0.5
    at = torch.arange(-2, 3.0)
    rows, columns = (torch.exp(-0.5 * ((at - s[..., None]) / sigma[..., None]) ** 2) for s in shift)
    kernel = rows[..., :, None] * columns[..., None, :]
    kernel = (kernel / kernel.sum((-1, -2), keepdim=True)).view(n * bands, 1, 5, 5)
    padded = F.pad(logs.reshape(1, n * bands, height, width), (2, 2, 2, 2), mode="replicate")
    logs = F.conv2d(padded, kernel, groups=n * bands).view_as(logs)
    blue = torch.linspace(1, 0, bands)
    level = 0.06 * torch.rand((n, 1), generator=draw) ** 2 * torch.exp(1.2 * torch.rand((n, 1), generator=draw) * blue)
    level = level + 0.002
    noise = torch.randn(logs.shape, generator=draw)
    logs = logs + level[:, :, None, None] * noise
    lost = torch.rand((n, bands), generator=draw) < 0.15 * torch.rand((n, 1), generator=draw) ** 4
    logs = torch.where(lost[:, :, None, None], logs.mean((2, 3), keepdim=True) + 0.05 * noise, logs)
    colour = _curves(n, bands, 0.3, draw) + 0.2 * torch.randn((n, 1), generator=draw)
    return logs.add_(colour[:, :, None, None]).exp_().add_(LOG_FLOOR).log_()


def _vignette(n: int, height: int, width: int, draw: torch.Generator) -> Tensor:
    """A lamp off the middle, 0 to about -2 at the rim, [N, 1, H, W]."""
    centre = 0.35 * torch.randn((n, 2, 1, 1), generator=draw)
    rows, columns = torch.linspace(-1, 1, height).view(1, -1, 1), torch.linspace(-1, 1, width).view(1, 1, -1)
    return -((rows - centre[:, 0]).square() + (columns - centre[:, 1]).square())[:, None]


def _noise(n: int, cells: int, shape: tuple[int, int], draw: torch.Generator) -> Tensor:
    """Smooth noise of variance about 1 with so many grains across, [N, 1, H, W]."""
    grid = torch.randn((n, 1, cells + 3, cells + 3), generator=draw)
    return F.interpolate(grid, size=shape, mode="bilinear", align_corners=False) * 1.3


def _curves(n: int, bands: int, strength: float, draw: torch.Generator) -> Tensor:
    """Smooth random curves over the bands, standard deviation about `strength`, [N, C]."""
    position = torch.linspace(0, 1, bands)
    cosines = torch.stack([torch.cos(torch.pi * k * position) / (1 + k) for k in range(1, _SMOOTH + 1)])
    return strength * 1.6 * torch.randn((n, _SMOOTH), generator=draw) @ cosines


def _uniform(draw: torch.Generator, n: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand((n, 1, 1, 1), generator=draw)
