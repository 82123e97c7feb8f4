"""The phantom against published physics: Delori's table, haemoglobin's signs, oximetry, the disc, the camera."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from synthgen.cubes.phantom import camera, evidence, spectra
from synthgen.cubes.phantom.bands import Bands, tabulate
from synthgen.cubes.phantom.demographics import Visit
from synthgen.cubes.phantom.simulate import WAVELENGTHS, simulate_cube
from synthgen.cubes.phantom.spectra import Signature
from synthgen.cubes.phantom.tables import blood_absorption, macular_density, media_density
from synthgen.errors import ConfigError

NM = np.array(WAVELENGTHS)


@pytest.mark.parametrize("site", evidence.SITES)
def test_within_the_between_subject_deviation_of_delori_and_pflibsen(site):
    found = evidence.against_delori(site)
    assert len(found["nm"]) == 20
    assert np.abs(found["z"]).max() <= 1.0, dict(zip(found["nm"], found["z"].round(2), strict=True))


def test_people_vary_as_much_as_delori_and_pflibsens_subjects():
    """Ten subjects give one only to within a chi-square interval: 95 % of the 60 ratios must lie in it."""
    ratio = np.concatenate([v["published"] / v["ours"] for v in map(evidence.variation, evidence.SITES)])
    free = evidence.DELORI_SUBJECTS - 1
    low, high = np.sqrt(stats.chi2.ppf([0.025, 0.975], free) / free)
    assert ((ratio > low) & (ratio < high)).mean() >= 0.95, np.sort(ratio).round(2)
    assert 0.8 < np.median(ratio) < 1.25


def test_tables_meet_their_reference_values():
    assert media_density(np.array([450.0]), 30)[0] == pytest.approx(0.352, abs=0.002)
    assert media_density(np.array([450.0]), 70)[0] == pytest.approx(0.714, abs=0.002)
    assert blood_absorption(np.array([540.0]), 0.95)[0] == pytest.approx(28.33, abs=0.05)  # 1/mm
    assert blood_absorption(np.array([660.0]), 0.60)[0] == pytest.approx(0.79, abs=0.01)
    assert macular_density(np.array([450.0, 600.0])) == pytest.approx([0.952, 0.0], abs=0.01)


def test_kubelka_munk_has_its_limits(monkeypatch):
    """No absorption and a white ground: white. Very thick: Kubelka's infinite reflectance. Thin: the ground alone."""
    nm = np.array([700.0])
    none = spectra.choroid(nm, np.array([1e-12]), np.array([1e-12]))
    s = spectra.SCATTER * (700 / 600) ** spectra.SCATTER_SLOPE
    two = spectra.SCLERA  # without absorption a layer over a ground gives (R + S(1 - R)) / (1 + S(1 - R))
    assert none[0] == pytest.approx((two + s * (1 - two)) / (1 + s * (1 - two)), rel=1e-4)
    melanin = 40.0
    k = 2 * np.log(10) * (1 - spectra.EPITHELIUM_SHARE) * melanin * (700 / 500) ** -3.48
    infinite = 1 + k / s - np.sqrt((k / s) ** 2 + 2 * k / s)
    assert spectra.choroid(nm, np.array([melanin]), np.array([1e-12]))[0] == pytest.approx(infinite, rel=1e-3)


@pytest.mark.parametrize("fwhm", [0.0, 5.0, 10.0])
def test_blood_has_the_published_signs_for_the_cameras_band_shape(fwhm):
    ratio = dict(zip(WAVELENGTHS, evidence.vein_over_artery(NM, fwhm), strict=True))
    for nm in evidence.DARKER_VEIN:
        assert ratio[nm] > 1
    for nm in evidence.DARKER_ARTERY:
        assert ratio[nm] < 1
    given = {*evidence.DARKER_VEIN, *evidence.DARKER_ARTERY}
    assert all(abs(value - 1) < 0.03 for nm, value in ratio.items() if nm not in given), "only 570 nm may be equal"


def test_rendered_vessels_have_the_signs_of_their_blood():
    """At equal calibre, through the tables that the images are made of."""
    ratio, tables = evidence.vein_over_artery(NM, 10.0), _tables({"artery": 0.96, "vein": 0.58})
    density = {kind: -np.log(tables.through(kind, np.array([0.08]))[:, 0]) for kind in ("artery", "vein")}
    found = density["vein"] / density["artery"]
    departs = np.abs(ratio - 1) > 0.03
    assert departs.sum() >= 14
    assert (np.sign(found - 1) == np.sign(ratio - 1))[departs].all(), dict(zip(NM, found.round(3), strict=True))


@pytest.mark.parametrize("fwhm", [0.0, 5.0, 10.0])
@pytest.mark.parametrize("diameter", [0.05, 0.10, 0.15])
def test_optical_density_ratio_falls_with_saturation_as_in_vivo(diameter, fwhm, monkeypatch):
    slope = evidence.odr_slope(diameter, fwhm)
    assert slope == pytest.approx(evidence.ODR_SLOPE, abs=evidence.ODR_SLOPE_ERROR)
    monkeypatch.setattr(spectra, "PATH_FACTOR", 1.0)
    assert evidence.odr_slope(diameter, 0.0) == pytest.approx(-0.0026, abs=0.0001), "Beer-Lambert alone gives half"


@pytest.mark.slow
def test_disc_is_brighter_and_flatter_than_perifovea():
    """Brighter in all; flatter in all but the most pigmented, whose fundus hardly rises toward the red."""
    some, flatter = (NM >= 500) & (NM <= 650), []
    for patient in range(40):
        eye = simulate_cube(patient, "OS", 0, 64, seed=8)
        vessels = eye.masks["vein"] | eye.masks["artery"]
        disc = eye.cube[:, eye.masks["disc"] & ~vessels].mean(1)[some]
        ring = eye.cube[:, eye.masks["macula"] & ~eye.masks["disc"] & ~vessels].mean(1)[some]
        assert (disc > ring).all()
        flatter.append(disc[-1] / disc[0] < ring[-1] / ring[0])
    assert np.mean(flatter) >= 0.9
    nm = np.linspace(500, 650, 31)
    tissue = spectra.disc(nm, 0.0) * spectra.media(nm, 30.0)
    fundus = evidence.site_reflectance(evidence.median_person(), "perifovea", nm)
    assert (tissue > fundus).all() and np.log(tissue).std() < 0.85 * np.log(fundus).std()


def _tables(saturations, melanin=(0.3, 1.6), blood=(0.05, 0.15), fwhm=10.0):
    return tabulate(Bands.of(NM, fwhm), 60.0, 1.0, 1.0, saturations, melanin, blood)


@pytest.mark.parametrize("fwhm", [0.0, 10.0, 30.0])
def test_tabulated_reflectance_equals_the_layer_model_averaged_over_the_band(fwhm):
    rng = np.random.default_rng(0)
    melanin, blood = np.exp(rng.uniform(np.log(0.3), np.log(1.6), 300)), rng.uniform(0.05, 0.15, 300)
    got = _tables({}, fwhm=fwhm).reflectance(melanin, blood, np.ones(300))
    fine = np.linspace(-3.5, 3.5, 201)
    weight = np.exp(-(fine**2) / 2) / np.exp(-(fine**2) / 2).sum()
    nm = NM[:, None] + fine * fwhm / np.sqrt(8 * np.log(2))
    layers = spectra.front(nm)[..., None] + spectra.behind(nm[..., None], melanin, blood)
    exact = (spectra.media(nm, 60.0)[..., None] * layers * weight[:, None]).sum(1)
    error = np.abs(got / exact - 1)
    assert np.quantile(error, 0.99) < 0.012 and error.max() < 0.03


def test_a_pixel_reflects_the_same_to_the_bit_however_many_are_computed_with_it():
    """A matrix product would not do: BLAS adds in an order that depends on its threads and on the shape."""
    rng = np.random.default_rng(0)
    tables = replace(_tables({}), polynomial=rng.normal(size=(len(NM), 15)))  # terms large enough to tell the order
    maps = np.exp(rng.uniform(np.log(0.3), np.log(1.6), 4000)), rng.uniform(0.05, 0.15, 4000), np.ones(4000)
    together = tables.reflectance(*maps)
    for count in (1, 3, 1000):
        parts = [tables.reflectance(*(m[i : i + count] for m in maps)) for i in range(0, 4000, count)]
        np.testing.assert_array_equal(np.concatenate(parts, 1), together)


@pytest.mark.parametrize("amplitude", [0.03, 0.005, -0.02])
def test_signature_has_the_amplitude_sign_and_law_asked_for(amplitude):
    mark = Signature(amplitude, exponent=2.0, cutoff_nm=520.0)
    made = [[simulate_cube(p, size=32, seed=3, signature=s, prevalence=1.0) for p in range(3)] for s in (mark, 0.0)]
    law = mark.law(NM)
    assert law[0] == amplitude and (law[NM > 520] == 0).all()
    for a, b in zip(*made, strict=True):
        inside = a.masks["fov"]
        found = np.log(a.cube[:, inside].mean(1) / b.cube[:, inside].mean(1))
        assert found @ law / (law @ law) == pytest.approx(1.0, abs=0.05)
        assert np.abs(found[NM > 530]).max() < 1e-6


def test_signature_stays_in_its_region():
    with_it, without = (simulate_cube(1, size=64, seed=3, signature=s, prevalence=1.0) for s in (
        Signature(0.2, region="superior"), 0.0))  # fmt: skip
    change = np.log(np.maximum(with_it.cube[0], 1e-4) / np.maximum(without.cube[0], 1e-4))
    fov = with_it.masks["fov"]
    assert np.median(change[:24][fov[:24]]) == pytest.approx(0.2, abs=0.02)
    assert np.abs(np.median(change[40:][fov[40:]])) < 0.01
    with pytest.raises(ConfigError, match="region"):
        Signature(region="nose")


@pytest.mark.parametrize("size", [64, 224])
def test_noise_is_shot_and_read_noise_and_a_smaller_pixel_has_more_of_it(size):
    """Of a flat grey field: variance (SHOT R + READ^2) (size / 224)^2, in every band."""
    level = np.array([0.003, 0.02, 0.15], dtype=np.float32)
    flat = np.broadcast_to(level[:, None, None], (3, size, size)).copy()
    moment = Visit((0.0, 0.0), 0.0, 1.0, 0.0, (0.0, 0.0), 0.1, 0.0)
    seen = camera.photograph(flat, np.ones((size, size), bool), moment, np.random.default_rng(0))
    expected = np.sqrt((camera.SHOT * level + camera.READ**2) * (size / 224) ** 2)
    assert seen.std((1, 2)) == pytest.approx(expected, rel=0.05)
    assert (np.diff(seen.std((1, 2)) / level) < 0).all(), "relative noise is worst where light is scarcest"


def test_the_blue_of_an_eye_is_its_noisiest_band():
    eye = simulate_cube(2, "OD", 0, 224, seed=5)
    fov = eye.masks["fov"] & ~eye.masks["disc"]
    rough = np.diff(eye.cube, n=2, axis=2)[:, fov[:, 1:-1] & fov[:, 2:] & fov[:, :-2]]
    share = 1.4826 * np.median(np.abs(rough), 1) / eye.cube[:, fov].mean(1)
    assert share[0] == share.max() and share[0] > 1.5 * np.median(share)


@pytest.mark.parametrize("given", [{"amplitude": float("nan")}, {"exponent": 1e5}, {"cutoff_nm": float("inf")}])
def test_impossible_signatures(given):
    with pytest.raises(ConfigError, match="signature"):
        Signature(**given)
