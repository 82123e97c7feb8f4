"""Real cubes: wavelengths, structures, patients; cohort files, readers of foreign files, splits, the phantom."""
