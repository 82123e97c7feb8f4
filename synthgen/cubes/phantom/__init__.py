"""Simulated hyperspectral eyes: patient -> eye -> visit -> cube, from published tables and documented distributions."""

from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.phantom.simulate import PhantomCube, simulate_cube

__all__ = ["PhantomCube", "simulate_cohort", "simulate_cube"]
