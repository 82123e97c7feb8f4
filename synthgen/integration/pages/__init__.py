"""Pages and pictures of runs and cubes."""
