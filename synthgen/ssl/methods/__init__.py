"""Self-supervised methods: losses, heads, optimisation."""
