"""Synthetic hyperspectral retinal cubes, good enough to pretrain on, fed to self-supervised learning.

from synthgen import SyntheticRetinaDataset, Generator, Cohort, ExactMix, load_gates
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synthgen.cubes.cohort.cohort import Cohort as Cohort
    from synthgen.generator.dataset import SyntheticRetinaDataset as SyntheticRetinaDataset
    from synthgen.generator.generator import Generator as Generator
    from synthgen.integration.exact_mix import ExactMix as ExactMix
    from synthgen.quality.gates import load_gates as load_gates

__version__ = "0.1.0"
__all__ = ["Cohort", "ExactMix", "Generator", "SyntheticRetinaDataset", "load_gates"]

_HOME = {
    "Cohort": "synthgen.cubes.cohort.cohort",
    "ExactMix": "synthgen.integration.exact_mix",
    "Generator": "synthgen.generator.generator",
    "SyntheticRetinaDataset": "synthgen.generator.dataset",
    "load_gates": "synthgen.quality.gates",
}


def __getattr__(name: str):
    """Import on first use: `import synthgen` and `synthgen --help` stay quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'synthgen' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)
