"""Are all values of some tensors finite? Asked before weights are written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from synthgen.errors import NonFiniteError

REMEDY = "nothing was written; an earlier file or checkpoint is as it was"


def named_tensors(tree: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts, lists and tuples, with its dotted name."""
    if isinstance(tree, Tensor):
        yield name, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from named_tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(tree, list | tuple):
        for place, value in enumerate(tree):
            yield from named_tensors(value, f"{name}.{place}" if name else str(place))


def not_finite(tree: Any) -> list[str]:
    """Names of the tensors that hold NaN or an infinite value."""
    bad = lambda t: (t.is_floating_point() or t.is_complex()) and not bool(torch.isfinite(t.detach()).all())
    return [name for name, tensor in named_tensors(tree) if bad(tensor)]


def check_weights(tree: Any, path: str | os.PathLike, remedy: str = REMEDY) -> None:
    """NonFiniteError that names the first tensor which is not finite."""
    if bad := not_finite(tree):
        raise NonFiniteError(
            "weights that are not finite are not written", path=path, found=in_words(bad), remedy=remedy
        )


def in_words(bad: list[str]) -> str:
    """The names of tensors that are not finite, in words."""
    more = f" and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
    return f"NaN or infinity in {bad[0]}{more}"
