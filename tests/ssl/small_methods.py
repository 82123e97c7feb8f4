"""Every method over a small backbone, for the tests that hold all methods to one contract."""

from __future__ import annotations

from typing import Any

import torch

from synthgen.integration.method import METHODS as METHODS
from synthgen.integration.options import MethodOptions
from synthgen.ssl.backbone import make_backbone
from synthgen.ssl.methods.base import Method

SMALL: dict[str, dict[str, Any]] = {
    "dino": {"output_dim": 16, "hidden_dim": 16, "bottleneck_dim": 8, "freeze_steps": 0}
}


def make(
    method: str, backbone: str = "test_vit", bands: int = 4, seed: int = 0, gather: bool = False, **settings: Any
) -> Method:
    """The method with its default settings but what SMALL and `settings` say."""
    torch.manual_seed(seed)
    network = make_backbone(backbone, bands, 32)
    config = type(getattr(MethodOptions(), method))
    return METHODS[method](network, config(**SMALL.get(method, {}) | settings), gather)


def views_of(method: str, cubes: int, bands: int = 4, local: int = 2) -> list[torch.Tensor]:
    """Random views of as many cubes as `method` takes them: two whole ones, for DINO local ones as well."""
    whole = [torch.randn(cubes, bands, 32, 32) for _ in range(2)]
    return whole + [torch.randn(cubes, bands, 16, 16)] * (local * (method == "dino"))
