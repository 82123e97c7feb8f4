"""Self-supervised learning on cubes: backbones, augmentations, SimCLR and DINO, probes, collapse monitors."""
