"""Simulated hyperspectral eyes: patient -> eye -> visit -> cube, from published tables and documented distributions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synthgen.cubes.phantom.cohort import simulate_cohort as simulate_cohort
    from synthgen.cubes.phantom.simulate import simulate_cube as simulate_cube

_HOME = {"simulate_cohort": "synthgen.cubes.phantom.cohort", "simulate_cube": "synthgen.cubes.phantom.simulate"}


def __getattr__(name: str):
    """Import on first use: the processes that simulate need no torch and start quickly without it."""
    if name not in _HOME:
        raise AttributeError(f"module 'synthgen.cubes.phantom' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)
