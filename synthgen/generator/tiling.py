"""Decoding in tiles: the decoder's receptive field is bounded, so tiles with enough margin join without a seam."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthgen.generator.config import AutoencoderConfig
from synthgen.generator.networks.autoencoder import Autoencoder, Decoder


def margin(config: AutoencoderConfig) -> int:
    """Latent pixels by which a decoded pixel looks beyond its own: every 3x3 convolution reaches one of its pixels."""
    blocks = [2 * config.decoder_blocks / 2**level for level in range(config.halvings + 1)]
    return math.ceil(1 + sum(blocks) + 1 / config.compression)


def decode_codes(model: Autoencoder, values: Tensor, field: Tensor, tile: int) -> Tensor:
    """`model.decode_codes` of code vectors [N, K, h, w] and base field [N, C, H, W], in tiles unless `tile` is 0."""
    if not tile or tile >= max(values.shape[-2:]):
        return model.decode_codes(values, field)
    return decode_in_tiles(model.decoder, model.from_code(values), model.config, tile) + field


def decode_in_tiles(decoder: Decoder, latent: Tensor, config: AutoencoderConfig, tile: int) -> Tensor:
    """The same as decoder(latent) to the rounding of floats, in memory that does not grow with the image.

    latent [N, D, h, w] -> [N, C, h f, w f]; tile: side in latent pixels of what is decoded at once, besides its margin.
    The margin costs (1 + 2 margin / tile)^2 times the work of decoding whole.
    """
    f, reach = config.compression, margin(config)
    n, _, height, width = latent.shape
    out = latent.new_empty((n, config.bands, height * f, width * f), dtype=torch.float32)
    for row in range(0, height, tile):
        for column in range(0, width, tile):
            top, left = max(0, row - reach), max(0, column - reach)
            piece = latent[..., top : row + tile + reach, left : column + tile + reach]
            down, right = min(row + tile, height), min(column + tile, width)
            inside = decoder(piece)[..., (row - top) * f : (down - top) * f, (column - left) * f : (right - left) * f]
            out[..., row * f : down * f, column * f : right * f] = inside
    return out
