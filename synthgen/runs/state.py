"""Nested training state (dicts, lists, tensors, arrays, numbers) as one safetensors file, without pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from synthgen.errors import InputError, must_exist


def save_state(path: str | os.PathLike, tree: Any) -> None:
    """Write `tree`; what cannot be written without pickle raises TypeError."""
    tensors: dict[str, torch.Tensor] = {}
    plan = json.dumps(_strip(tree, tensors))
    if not tensors:
        tensors["empty"] = torch.zeros(0)
    save_file(tensors, os.fspath(path), metadata={"tree": plan})


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
        return value.item()
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
        if kind == "array":
            return tensor(value).numpy()
        if kind == "tuple":
            return tuple(_fill(v, tensor) for v in value)
        return {_fill(k, tensor): _fill(v, tensor) for k, v in value}
    return plan
