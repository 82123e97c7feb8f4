"""Feature spaces in which cubes are compared."""
