"""How fast: cubes and samples a second, seconds, bytes, memory."""
