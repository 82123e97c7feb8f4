"""Several processes: how many cores, on which device, begun and ended together, what they decide together."""
