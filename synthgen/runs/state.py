"""Nested training state (dicts, lists, tensors, arrays, numbers) as one safetensors file, without pickle."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from synthgen.errors import InputError, must_exist
from synthgen.runs.files import json_text
from synthgen.runs.finite import check_weights


def write_tensors(
    path: str | os.PathLike, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as one safetensors file. Every file of weights is written here.

    NonFiniteError, and no file, where a value is NaN or infinite.
    """
    check_weights(tensors, path)
    write_values(path, tensors, metadata)


def write_values(
    path: str | os.PathLike, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """The same for measured values, of which some may be missing (NaN)."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(plain, os.fspath(path), metadata=None if metadata is None else dict(metadata))


def save_state(path: str | os.PathLike, tree: Any) -> None:
    """Write `tree`; what cannot be written without pickle raises TypeError."""
    tensors: dict[str, torch.Tensor] = {}
    plan = json_text(_strip(tree, tensors))
    if not tensors:
        tensors["empty"] = torch.zeros(0)
    write_values(path, tensors, {"tree": plan})


def load_state(path: str | os.PathLike, device: str | torch.device = "cpu") -> Any:
    """Read what `save_state` wrote; InputError when the file is missing or damaged."""
    path = must_exist(Path(path))
    try:
        with safe_open(os.fspath(path), framework="pt", device=str(device)) as file:
            plan = json.loads((file.metadata() or {})["tree"])
            return _fill(plan, file.get_tensor)
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise InputError("is damaged or not a state file", path=path, found=str(error)[:200]) from None


def _strip(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"!": "tensor", "v": name}
    if isinstance(value, np.ndarray):
        return {"!": "array", "v": _strip(torch.from_numpy(np.ascontiguousarray(value)), tensors)["v"]}
    if isinstance(value, dict):
        return {"!": "dict", "v": [[_strip(k, tensors), _strip(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"!": "tuple", "v": [_strip(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_strip(v, tensors) for v in value]
    if isinstance(value, np.generic):
        return _strip(value.item(), tensors)
    if isinstance(value, float) and not math.isfinite(value):
        return {"!": "float", "v": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"cannot save a {type(value).__name__} without pickle")


def _fill(plan: Any, tensor: Any) -> Any:
    if isinstance(plan, list):
        return [_fill(v, tensor) for v in plan]
    if isinstance(plan, dict):
        kind, value = plan["!"], plan["v"]
        if kind == "tensor":
            return tensor(value)
        if kind == "float":
            return float(value)
        if kind == "array":
            return tensor(value).numpy()
        if kind == "tuple":
            return tuple(_fill(v, tensor) for v in value)
        return {_fill(k, tensor): _fill(v, tensor) for k, v in value}
    return plan
