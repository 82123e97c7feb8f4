"""Autoencoder, U-Net and flow: shapes at odd and even sizes, exactness of what is promised to be exact."""

from __future__ import annotations

import pytest
import torch

from synthgen.cubes.reflectance import BandStatistics
from synthgen.errors import ConfigError
from synthgen.generator.config import AutoencoderConfig, FlowConfig
from synthgen.generator.flow import Flow, flow_error, interpolate, logit_normal_times
from synthgen.generator.networks.autoencoder import Autoencoder, base_field, coarse_base
from synthgen.generator.networks.unet import UNet
from synthgen.generator.normalisation import denormalised, normalised
from synthgen.generator.samplers import SAMPLERS, heun, pick_sampler, time_grid
from synthgen.generator.tiling import decode_codes, margin


def autoencoder(**choices) -> Autoencoder:
    torch.manual_seed(0)
    defaults = {"bands": 6, "size": 32, "codes": 32, "encoder_channels": 8, "decoder_channels": 8, "max_channels": 16}
    config = AutoencoderConfig(**{**defaults, **choices})
    model = Autoencoder(config, BandStatistics((-4.0,) * config.bands, (0.5,) * config.bands))
    model.quantiser.codebook.normal_()
    model.quantiser.initialised.fill_(True)
    return model.eval()


@pytest.mark.parametrize("compression", [2, 4, 8, 16])
@pytest.mark.parametrize("levels", [1, 3])
def test_any_power_of_two_compresses_and_comes_back(compression: int, levels: int):
    model = autoencoder(compression=compression, levels=levels, size=48)
    x = torch.randn(2, 6, 48, 48)
    out = model(x, base_field(model.base(x), (48, 48)))
    side = 48 // compression
    assert out.x.shape == x.shape and out.quantised.indices.shape == (2, levels, side, side)


def test_wide_latents_are_quantised_in_a_narrow_projection():
    model = autoencoder(latent_channels=16, code_dim=4)
    assert model.quantiser.codebook.shape == (1, 32, 4)
    assert model.code_vectors(torch.randn(1, 6, 32, 32)).shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"compression": 6}, "power of two"),
        ({"compression": 8, "size": 36}, "does not divide"),
        ({"compression": 2, "latent_channels": 32}, "larger than the cube"),
    ],
)
def test_impossible_designs_are_refused(choices: dict, words: str):
    from synthgen.config import build

    with pytest.raises(ConfigError, match=words):
        build(AutoencoderConfig, {"bands": 6, "size": 32, **choices})


def test_the_base_carries_a_global_change_exactly():
    """A shift of one band reaches the output whatever the codes say: it goes through the base alone."""
    model = autoencoder(base_grid=4)
    x = torch.randn(1, 6, 32, 32)
    shift = torch.zeros_like(x)
    shift[:, 2] = 0.25
    first, second = (model(y, base_field(model.base(y), (32, 32))).x for y in (x, x + shift))
    # float16 steps of the base are at most 0.001 at values below 2
    assert ((second - first) - shift).abs().mean() < 2e-3


def muted(model: Autoencoder) -> Autoencoder:
    """The linear path alone."""
    for layer in (model.encoder.out, model.decoder.last):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return model


def test_the_linear_path_starts_at_the_principal_components():
    """It reproduces scikit-learn's PCA of the patches; latents have a mean square of one."""
    from sklearn.decomposition import PCA

    model = muted(autoencoder(compression=4, latent_channels=5))
    x = torch.randn(6, 6, 32, 32).cumsum(-1).cumsum(1) / 10
    with torch.no_grad():
        model.start_at_components([x])
        latent = model.encoder(x)
        back = model.decoder(latent)
    patches = torch.nn.functional.pixel_unshuffle(x, 4).permute(0, 2, 3, 1).reshape(-1, 6 * 16).double().numpy()
    pca = PCA(5).fit(patches)
    expected = pca.inverse_transform(pca.transform(patches))
    found = torch.nn.functional.pixel_unshuffle(back, 4).permute(0, 2, 3, 1).reshape(-1, 6 * 16)
    assert torch.allclose(found.double(), torch.from_numpy(expected), atol=1e-4)
    assert latent.square().mean() == pytest.approx(1.0, rel=5e-3)


def test_a_narrow_code_lets_the_leading_components_pass():
    wide, narrow = (muted(autoencoder(compression=4, latent_channels=n, code_dim=3)) for n in (3, 9))
    x = torch.randn(6, 6, 32, 32).cumsum(-1).cumsum(1) / 10
    with torch.no_grad():
        reconstructed = []
        for model in (wide, narrow):
            model.start_at_components([x])
            reconstructed.append(model.decoder(model.from_code(model.code_vectors(x))))
    assert torch.allclose(*reconstructed, atol=1e-4)


def test_without_a_linear_path_there_is_none():
    model = autoencoder(linear_path=False)
    model.start_at_components(torch.randn(2, 6, 32, 32).split(1))
    assert not any("patches" in name for name, _ in model.named_parameters())


def test_base_grid_zero_is_the_original_design():
    model = autoencoder(base_grid=0)
    x = torch.randn(1, 6, 32, 32)
    assert model.base(x).shape == (1, 6, 0, 0)
    assert base_field(model.base(x), (32, 32)).abs().max() == 0


def test_coarse_base_is_the_cell_mean_in_half_precision():
    x = torch.randn(2, 3, 8, 8)
    base = coarse_base(x, 2)
    assert base.dtype == torch.float16
    assert torch.allclose(base[0, 1, 1, 0].float(), x[0, 1, 4:, :4].mean(), atol=1e-3)


def test_black_pixels_do_not_count_in_the_base():
    x = torch.ones(1, 3, 8, 8)
    x[..., :5] = -3.6  # outside of the field of view
    assert torch.allclose(coarse_base(x, 2), torch.ones(1, 3, 2, 2, dtype=torch.float16), atol=1e-3)
    assert torch.isfinite(coarse_base(torch.full((1, 3, 8, 8), -3.6), 2)).all()


def test_normalisation_is_inverted_from_black_to_bright():
    statistics = BandStatistics((-2.5, -4.0), (0.3, 0.2))
    cubes = torch.linspace(0, 1, 1000).repeat(2, 1)[None, :, :, None]
    x = normalised(cubes, statistics)
    assert torch.allclose(denormalised(x, statistics), cubes, atol=1e-5)
    assert (x.diff(dim=2) > 0).all() and x.min() > -5


@pytest.mark.slow
@pytest.mark.parametrize(("compression", "blocks"), [(2, 1), (4, 2), (8, 1), (8, 3)])
@pytest.mark.parametrize("tile", [3, 5, 64])
def test_tiled_decoding_equals_untiled(compression: int, blocks: int, tile: int):
    """Per-pixel norms and no attention: the decoder's receptive field is bounded, so its tiles have no seam."""
    model = autoencoder(compression=compression, decoder_blocks=blocks, base_grid=2)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.normal_(0, 0.2)
        latent, field = torch.randn(2, 8, 13, 17), torch.randn(2, 6, 13 * compression, 17 * compression)
        whole, tiled = model.decode_codes(latent, field), decode_codes(model, latent, field, tile)
        assert torch.allclose(tiled, whole, atol=1e-5 * float(whole.abs().max()))


def test_a_margin_smaller_by_one_shows():
    """The margin is what it must be, not more: one latent pixel less and the seams are seen."""
    model = autoencoder(compression=4)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.normal_(0, 0.2)
        latent, reach = torch.randn(1, 8, 20, 20), margin(model.config)
        whole = model.decoder(latent)
        for less, equal in ((0, True), (1, False)):
            piece = model.decoder(latent[..., : 8 + reach - less, :])
            assert torch.allclose(piece[..., :32, :], whole[..., :32, :], atol=1e-4 * float(whole.abs().max())) is equal


@pytest.mark.parametrize("size", [(14, 14), (7, 9), (16, 16), (1, 1)])
def test_unet_takes_any_size(size: tuple[int, int]):
    net = UNet(5, 8, (1, 2, 2), blocks=1, heads=2, dropout=0.0)
    torch.nn.init.normal_(net.out.weight)
    x = torch.randn(2, 5, *size)
    assert net(x, torch.rand(2)).shape == x.shape
    assert torch.allclose(net(x, torch.full((1,), 0.3)), net(x, torch.full((2,), 0.3)), atol=1e-6)


def flow(base_grid: int = 4, latent_size: int = 7, base_lead: float = 0.0) -> Flow:
    torch.manual_seed(0)
    return Flow(
        FlowConfig(
            channels=8,
            multipliers=(1, 2),
            attention_heads=2,
            latent_channels=4,
            latent_size=latent_size,
            bands=6,
            base_grid=base_grid,
            base_lead=base_lead,
        )
    )


@pytest.mark.parametrize("base_grid", [0, 1, 4, 10, 14])
def test_flow_works_on_flat_states(base_grid: int):
    net = flow(base_grid)
    state = torch.randn(3, net.config.state_numbers)
    assert net.config.state_numbers == 4 * 49 + 6 * base_grid**2
    assert net(state, torch.rand(3)).shape == state.shape
    latent, base = net.split(state)
    assert torch.equal(torch.cat([latent.flatten(1), base.flatten(1)], 1), state)


@pytest.mark.parametrize("base_grid", [4, 10, 14])
def test_every_cell_of_the_base_is_seen_and_answered(base_grid: int):
    """Also where the cells are finer than the tokens, 7 a side."""
    net = flow(base_grid)
    torch.nn.init.normal_(net.unet.out.weight)  # it starts at zero
    state = torch.randn(1, net.config.state_numbers, requires_grad=True)
    motion = net.motion(state, torch.tensor([0.5]))
    cells = motion[0, net.config.latent_numbers :].reshape(6, -1)
    assert len(cells[0].unique()) == base_grid**2
    (gradient,) = torch.autograd.grad(motion.square().sum(), state)
    assert (gradient != 0).all()


@pytest.mark.parametrize("whitening", [1.0, 0.5, 0.0])
def test_whitening_is_inverted_and_leaves_what_was_asked(whitening: float):
    """States are centred at every place, of mean variance one, each scaled by std^(1 - whitening) up to one factor."""
    net = flow()
    latents = torch.linspace(-3, 3, 49).reshape(7, 7) + torch.tensor([8.0, 4, 2, 1])[:, None, None] * torch.randn(
        400, 4, 7, 7
    )
    mixing = torch.randn(6, 6)
    base = torch.einsum("pc,ncij->npij", mixing, torch.randn(400, 6, 4, 4)) + 1
    net.statistics.fit(latents, base, whitening)
    state = net.statistics.whiten(latents, base)
    back = net.statistics.colour(*net.split(state))
    assert torch.allclose(back[0], latents, atol=1e-4) and torch.allclose(back[1], base, atol=1e-4)
    latent, cells = net.split(state)
    assert latent.mean(0).abs().max() < 1e-5
    sigma_data = latent.std((0, 2, 3))
    assert sigma_data.square().mean() == pytest.approx(1, abs=1e-3)
    assert (sigma_data / sigma_data[-1]).tolist() == pytest.approx(
        [8.0 ** (k * (1 - whitening) / 3) for k in (3, 2, 1, 0)], rel=0.02
    )
    flat = torch.cov(cells.permute(0, 2, 3, 1).reshape(-1, 6).T)
    assert torch.trace(flat) == pytest.approx(6, abs=0.01)
    assert (flat - torch.diag(flat.diagonal())).abs().max() < 0.02  # principal spectra stay apart
    if whitening == 1:
        assert torch.allclose(flat, torch.eye(6), atol=0.02)
    assert torch.allclose(sigma_data, net.statistics.latent_spread, rtol=1e-3)
    at_zero = net.split(net.sigma(torch.zeros(1)))[0][0]
    assert torch.allclose(at_zero, net.statistics.latent_spread[:, None, None])


@pytest.mark.parametrize("steps", [1, 2, 8])
@pytest.mark.parametrize("sampler", ["euler", "heun", "ab2"])
def test_independent_normal_numbers_are_sampled_exactly_by_any_number_of_steps(sampler: str, steps: int):
    """With a silent network the flow is that of independent normal data: x_1 = e ends as sigma times e."""
    net = flow()
    net.statistics.latent_spread.copy_(torch.tensor([2.0, 1.0, 0.3, 0.01]))
    noise = torch.randn(3, net.config.state_numbers)
    end = pick_sampler(sampler)(lambda y, t: net.motion(y, torch.full((1,), t)), noise, time_grid(steps), net.angle)
    assert torch.allclose(end, noise) and torch.equal(net.sigma_data()[:49], torch.full((49,), 2.0))
    # The same path as a velocity of x_t = (1 - t) x_0 + t e: its sigma grows as sqrt(t^2 + (1 - t)^2 sigma_data^2).
    t, sigma_data = 0.3, net.sigma_data()
    sigma = [(u**2 + ((1 - u) * sigma_data) ** 2).sqrt() for u in (t - 1e-3, t, t + 1e-3)]
    slope = net(sigma[1] * noise, torch.full((3,), t))
    assert torch.allclose(slope, (sigma[2] - sigma[0]) / 2e-3 * noise, atol=1e-3)


def test_the_base_comes_out_of_the_noise_ahead_of_the_latent_and_stays():
    net = flow(base_lead=0.4)
    own = net.times(torch.tensor([1.0, 0.7, 0.4, 0.1]))
    latent, base = own[:, : net.config.latent_numbers], own[:, net.config.latent_numbers :]
    assert torch.equal(latent[:, 0], torch.tensor([1.0, 0.7, 0.4, 0.1]))
    torch.testing.assert_close(base[:, 0], torch.tensor([1.0, 0.5, 0.0, 0.0]))
    data, noise = torch.randn(4, own.shape[1]), torch.randn(4, own.shape[1])
    assert torch.equal(interpolate(data, noise, own)[0][2:, net.config.latent_numbers :], data[2:, -base.shape[1] :])
    weight = net.weight_at(net.weight(8.0), own)
    assert weight[2:, -base.shape[1] :].eq(0).all() and weight[:2].gt(0).all()
    torch.nn.init.normal_(net.unet.out.weight, std=0.1)  # a network that moves everything, at every time
    seen: list[torch.Tensor] = []

    def motion(y: torch.Tensor, t: float) -> torch.Tensor:
        seen.append(y)
        return net.motion(y, torch.full((1,), t))

    for name in SAMPLERS:
        end = pick_sampler(name)(motion, torch.randn(2, own.shape[1]), time_grid(10), net.angle)
        assert torch.isfinite(end).all()
        settled = [y[:, -base.shape[1] :] for y in [*seen, end]][-3:]  # the last evaluations are below the lead
        assert all(torch.equal(y, settled[0]) for y in settled), name


@pytest.mark.slow
def test_velocity_and_motion_along_the_angle_tell_the_same_path():
    net = flow()
    torch.nn.init.normal_(net.unet.out.weight, std=0.1)
    net.statistics.latent_spread.copy_(torch.tensor([2.0, 1.0, 0.3, 0.1]))
    noise = torch.randn(2, net.config.state_numbers)
    times = time_grid(400)
    by_time = heun(lambda x, t: net(x, torch.full((2,), t)), noise, times)
    by_angle = heun(lambda y, t: net.motion(y, torch.full((1,), t)), noise, times, net.angle) * net.sigma_data()
    assert torch.allclose(by_time, by_angle, atol=2e-2)
    assert not torch.allclose(by_angle, noise * net.sigma_data(), atol=0.2)


def test_path_and_velocity_agree():
    data, noise = torch.randn(4, 10), torch.randn(4, 10)
    x, velocity = interpolate(data, noise, torch.tensor([[0.0], [0.3], [0.7], [1.0]]))
    assert torch.equal(x[0], data[0]) and torch.equal(x[3], noise[3])
    assert torch.allclose(x[1] - 0.3 * velocity[1], data[1], atol=1e-6)


def test_times_are_logit_normal_and_shift_towards_noise():
    random = torch.Generator().manual_seed(0)
    t = logit_normal_times(20000, 1.0, random)
    assert abs(float(torch.logit(t).mean())) < 0.02 and abs(float(torch.logit(t).std()) - 1) < 0.02
    assert logit_normal_times(20000, 3.0, random).mean() > t.mean() + 0.1


def test_errors_of_the_base_weigh_what_was_asked_by_their_standard_deviation():
    flow = Flow(FlowConfig(channels=8, multipliers=(1,), latent_channels=4, latent_size=4, bands=3, base_grid=2))
    flow.statistics.base_spread.copy_(torch.tensor([2.0, 1.0, 0.5]))
    weight = flow.weight(8.0)
    assert weight[:64].eq(1).all() and weight[64:].view(3, 4)[:, 0].tolist() == [4.0, 8.0, 16.0]
    target, velocity = torch.zeros(2, flow.config.state_numbers), torch.zeros(2, flow.config.state_numbers)
    velocity[0, 0], velocity[1, 64] = 1.0, 1.0  # one number of the latent, one of the strongest base spectrum
    latent, base = flow_error(velocity, target, weight)
    assert torch.isclose(base, 4 * latent) and torch.isclose(latent, 1 / weight.sum())
    assert torch.allclose(flow_error(velocity, target, torch.ones_like(weight)), velocity.square().mean(1))


def test_a_spectral_head_leaves_what_the_decoder_makes_as_it_is_and_shrinks_errors_along_weak_axes():
    plain, headed = (autoencoder(bands=4, spectral_head=head) for head in (False, True))
    state = plain.state_dict() | {"decoder.spectra": headed.decoder.spectra}
    headed.load_state_dict(state)
    mixed = torch.randn(4, 4) @ torch.diag(torch.tensor([3.0, 1.0, 0.1, 0.01]))
    pixels = torch.einsum("cp,nphw->nchw", mixed, torch.randn(6, 4, 16, 16))
    latent = torch.randn(2, plain.config.latent_channels, 4, 4)
    before = plain.decoder(latent)
    headed.set_spectra([pixels[:2], pixels[2:]])
    torch.testing.assert_close(headed.decoder(latent), before, rtol=1e-4, atol=1e-5)
    spectra = headed.decoder.spectra
    covariance = torch.cov(pixels.permute(1, 0, 2, 3).flatten(1))
    torch.testing.assert_close(spectra @ spectra.T, covariance, rtol=1e-3, atol=1e-4)
    assert float(spectra.norm(dim=0).min()) < 0.02 * float(spectra.norm(dim=0).max())
