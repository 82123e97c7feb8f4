"""Real cubes: wavelengths, structures, patients; cohort files, readers of external files, splits, the phantom."""
