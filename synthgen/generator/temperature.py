"""From noise to states along a trained flow, and the temperature of that noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from synthgen.generator.flow import Flow
from synthgen.generator.samplers import pick_sampler, time_grid
from synthgen.runs.randomness import sample_noise

LOWEST, HIGHEST = 0.8, 1.25  # temperatures beyond these are for flows that have learned nothing
POSITIONS = 128 * 16**2  # of the latent, over all states that are sampled to fit the temperature
FEWEST, MOST = 16, 128  # such states: a larger latent tells as much of the variance in fewer of them
FIT_SEED = 0x7E39


def follower(flow: Flow, steps: int, sampler: str, shift: float, start: float = 1.0) -> Callable[[Tensor], Tensor]:
    """A function from scaled states y [N, S] at time `start` (noise at 1) to states [N, S]."""
    integrate, times = pick_sampler(sampler), time_grid(steps, shift, start)

    def motion(y: Tensor, t: float) -> Tensor:
        return flow.motion(y, torch.full((1,), t, device=y.device))

    return lambda y: integrate(motion, y, times, flow.angle) * flow.sigma_data()


@torch.no_grad()
def fit_temperature(
    flow: Flow, states: Tensor, shift: float, steps: int = 8, sampler: str = "ab2", chunk: int = 32
) -> float:
    """The factor on the latent's noise at which samples vary as much as the training set.

    A flow that was regularised (dropout, averaged weights, an early stop) predicts with too little contrast, and its
    samples vary less than what it learned from, in every channel and at every scale alike. Their variance grows about
    as the noise's, so two measurements tell.

    Args:
        flow: in evaluation mode. states [N, S]: of the training set. shift, steps, sampler: as cubes will be sampled.
        chunk: states sampled at once.
    """
    device, numbers = flow.statistics.latent_mean.device, flow.config.latent_numbers
    draws = min(MOST, max(FEWEST, POSITIONS // flow.config.latent_size**2))
    noise = sample_noise(FIT_SEED, range(draws), (flow.config.state_numbers,))
    follow, real = follower(flow, steps, sampler, shift), _variances(flow, states)

    def excess(temperature: float) -> float:
        started = torch.cat([noise[:, :numbers] * temperature, noise[:, numbers:]], 1)
        made = torch.cat([follow(part.to(device)).cpu() for part in started.split(chunk)])
        return float((_variances(flow, made) / real).mean()) - 1

    low, high = 1.0, 1.1
    at_low, at_high = excess(low), excess(high)
    rise = (at_high - at_low) / (high**2 - low**2)
    if not rise > 0:  # noise that does not tell in what is made of it
        return 1.0
    return round(min(max(low**2 - at_low / rise, LOWEST**2), HIGHEST**2) ** 0.5, 2)


def _variances(flow: Flow, states: Tensor) -> Tensor:
    """Variance about the mean state, [D]: of every latent channel."""
    latent = flow.split(states)[0]
    return latent.var(0).mean((1, 2)).clamp(min=1e-12)
