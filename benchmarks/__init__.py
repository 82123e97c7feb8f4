"""Figures of merit, one command each; results in `results/` and on the page `README.md`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
