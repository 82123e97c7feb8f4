"""Checks of single cubes."""
