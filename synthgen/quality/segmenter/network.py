"""The segmenter's network: an smp U-Net whose first layer keeps every pixel, with batch norms folded into convolutions.

At 64 pixels most vessels are narrower than a pixel. A stem that halves the image, as every ImageNet encoder has, would
lose them, so its stride is 1: the U-Net's shallowest skip then has full resolution, and its last block, which would
double the image once more, is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from synthgen.config import Config

STRIDE = 16  # rows and columns must be multiples of it
_LIMIT = 5.0  # standard deviations at which the input is cut


class Network(Config):
    """What it takes to build the network; the encoder is any of smp's whose first convolution has stride 2."""

    encoder: str = "tu-mobilenetv3_small_050"
    decoder_channels: tuple[int, ...] = (64, 32, 24, 16)
    bands: int = 16
    structures: int = 3


def build(shape: Network) -> nn.Module:
    """The network with fresh weights: float32 [N, bands, H, W] -> logits [N, structures, H, W]."""
    import segmentation_models_pytorch as smp  # two seconds
    from segmentation_models_pytorch.base import SegmentationHead

    channels = shape.decoder_channels
    net = smp.Unet(
        shape.encoder,
        encoder_weights=None,
        encoder_depth=len(channels) + 1,
        decoder_channels=(*channels, channels[-1]),
        in_channels=shape.bands,
        classes=shape.structures,
    )
    stem = next(module for module in net.encoder.modules() if isinstance(module, nn.Conv2d))
    stem.stride = (1, 1)
    del net.decoder.blocks[-1]
    net.segmentation_head = SegmentationHead(channels[-1], shape.structures, kernel_size=1)
    net.check_input_shape = lambda x: None  # counts on the stem's stride
    return net


def folded(net: nn.Module) -> nn.Module:
    """`net`, in eval mode, with every batch norm folded into the convolution before it; it is changed."""
    for parent in net.modules():
        last: tuple[str, nn.Conv2d] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                last = name, child
            elif isinstance(child, nn.BatchNorm2d) and last is not None:
                setattr(parent, last[0], fuse_conv_bn_eval(last[1], child))
                setattr(parent, name, getattr(child, "act", nn.Identity()))  # timm's norms hold their activation
                last = None
    return net


def normalised(centred: Tensor, std: Tensor) -> Tensor:
    """The network's input [N, C, H, W] from log-reflectance minus each cube's mean spectrum; std [C].

    Without its mean a cube's gain, and any curve over its bands, are gone; what is left is contrast within the eye.
    """
    x = (centred / std[:, None, None]).clamp(-_LIMIT, _LIMIT)
    return x.contiguous(memory_format=torch.channels_last)
