"""Augmentation of reflectance cubes."""
