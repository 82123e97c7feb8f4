"""Statistics of sets of cubes."""
