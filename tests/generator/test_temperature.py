"""The temperature of a generator's noise is fitted so that samples vary as much as the training set."""

from __future__ import annotations

import pytest
import torch

from synthgen.config import build
from synthgen.errors import ConfigError
from synthgen.generator.config import FlowConfig
from synthgen.generator.flow import Flow
from synthgen.generator.temperature import HIGHEST, fit_temperature
from synthgen.generator.training.flow import DiffusionTraining


def still_flow(side: int = 8) -> Flow:
    """A flow that has learned nothing but its statistics: the motion along the angle is 0, states are scaled noise."""
    torch.manual_seed(0)
    flow = Flow(FlowConfig(channels=16, multipliers=(1, 2), attention_heads=2, latent_channels=4, latent_size=side,
                           bands=6, base_grid=4)).eval().requires_grad_(False)  # fmt: skip
    for parameter in flow.parameters():
        parameter.zero_()
    flow.statistics.latent_spread.copy_(torch.tensor([1.6, 0.9, 0.7, 0.3]))
    return flow


def data_of(flow: Flow, std: float, count: int = 600) -> torch.Tensor:
    """States of a training set whose latents deviate so many times as much as the flow's statistics say."""
    noise = torch.randn(count, flow.config.state_numbers, generator=torch.Generator().manual_seed(1))
    return std * flow.sigma_data() * noise + 3.0


@pytest.mark.slow
@pytest.mark.parametrize("std", [0.9, 1.0, 1.15])
def test_the_fit_returns_the_standard_deviation_of_the_data(std: float):
    flow = still_flow()
    assert fit_temperature(flow, data_of(flow, std), shift=2.0) == pytest.approx(std, abs=0.02)


@pytest.mark.slow
def test_a_large_latent_tells_as_much_in_few_states_one_at_a_time():
    flow, seen = still_flow(48), []
    flow.unet.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    assert fit_temperature(flow, data_of(flow, 1.15, 60), shift=2.0, chunk=1) == pytest.approx(1.15, abs=0.02)
    assert set(seen) == {1} and len(seen) < 2 * 8 * 20


def test_what_was_never_learned_is_not_made_up_for_by_noise():
    flow = still_flow()
    assert fit_temperature(flow, data_of(flow, 5.0), shift=2.0) == HIGHEST


def test_a_temperature_below_zero_is_refused():
    with pytest.raises(ConfigError, match="temperature"):
        build(DiffusionTraining, {"data": "a.h5", "out": "b", "autoencoder": "c", "temperature": -1})
