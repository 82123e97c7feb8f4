"""Self-supervised learning on cubes: backbones, augmentations, methods, probes, collapse monitors."""
