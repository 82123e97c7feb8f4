"""What the processes of one run decide together."""

from __future__ import annotations

import torch
import torch.distributed as dist


def any_rank(flag: bool) -> bool:
    """True on every process where `flag` is true on one; every process calls. In a single process, `flag` itself."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    result = torch.tensor([float(flag)], device=device)
    dist.all_reduce(result, dist.ReduceOp.MAX)
    return bool(result.item())
