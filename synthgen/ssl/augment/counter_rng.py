"""Random numbers by counter: each is a pure function of (seed, step, position, view, index), not of who draws it when.

SplitMix64 (Steele, Lea and Flood, 'Fast splittable pseudorandom number generators', OOPSLA 2014): the finaliser absorbs
the key word by word, and the stream is the generator's own output sequence from that state. Vectorised in numpy; a
batch of 64 with 112 numbers each takes about a tenth of a millisecond.
"""

from __future__ import annotations

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # odd integer nearest 2^64 / golden ratio


def _finalise(z: np.ndarray) -> np.ndarray:
    """SplitMix64's mixing function; uint64 arrays wrap around silently."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _absorb(state: np.ndarray, word: np.ndarray) -> np.ndarray:
    return _finalise((state ^ word) + _GAMMA)


def uniforms(seed: int, step: int, positions: np.ndarray, view: int, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 [B, count]; row b depends on (seed, step, positions[b], view) alone."""
    positions = np.asarray(positions)
    state = np.zeros(positions.shape, dtype=np.uint64)
    for word in (seed, step, view):
        state = _absorb(state, np.full_like(state, word % 2**64))
    state = _absorb(state, positions.astype(np.int64).view(np.uint64))
    counter = np.arange(1, count + 1, dtype=np.uint64)
    bits = _finalise(state[:, None] + _GAMMA * counter[None])
    return (bits >> np.uint64(11)) * 2.0**-53


def normals(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Standard normal numbers from two arrays of uniform ones (Box and Muller 1958)."""
    return np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)


def between(u: np.ndarray, low: float, high: float) -> np.ndarray:
    return low + (high - low) * u
