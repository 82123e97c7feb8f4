"""Opening users' files as sources of raw cubes."""
