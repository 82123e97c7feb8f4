"""Simulated hyperspectral eyes: patient -> eye -> visit -> cube, from published tables and documented distributions."""
