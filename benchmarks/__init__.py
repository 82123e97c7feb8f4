"""Figures of merit, one command each; results in `results/` and on the page `README.md`."""
