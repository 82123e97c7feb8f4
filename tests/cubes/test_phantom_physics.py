"""The phantom against published physics: Delori's table, haemoglobin's signs, the disc."""

import numpy as np
import pytest

from synthgen.cubes.phantom.simulate import WAVELENGTHS, simulate_cube
from synthgen.cubes.phantom.spectra import fundus, signature
from synthgen.cubes.phantom.tables import blood_absorption, macular_density, media_density, table
from synthgen.cubes.structures import region_spectra

AGE = 30.0  # Delori's subjects were 22 to 38 years old
# Site by site: what the maps of simulate._layers hold there for the median patient. Inner reflectance, melanin density
# at 500 nm, choroidal blood (mm), peak macular pigment.
SITES = {
    "nasal": (0.047, 0.62, 0.093, 0.0),
    "perifovea": (0.047 * 0.72, 0.62 * 1.40, 0.093 * 1.15, 0.06),
    "fovea": (0.047 * 0.72 * 0.80, 0.62 * 1.60, 0.093 * 1.15, 0.26),
}


def reflectance_at(site, nm):
    rho, melanin, choroid, _ = (np.full((1, 1), v) for v in SITES[site])
    column = fundus(nm, rho, melanin, choroid)[:, 0, 0]
    return column * 10 ** (-2 * SITES[site][3] * macular_density(nm)) * 10 ** (-2 * media_density(nm, AGE))


@pytest.mark.parametrize("site", SITES)
def test_within_the_between_subject_deviation_of_delori_and_pflibsen(site):
    published = table("fundus_reflectance_delori1989")
    nm, mean = published["wavelength_nm"], published[f"{site}_pct"]
    deviation = mean * published[f"{site}_cv"] / 100
    mine = 100 * reflectance_at(site, nm)
    z = (mine - mean) / deviation
    print(
        "\n".join(
            f"{w:.0f} nm  {a:6.2f} %  published {b:6.2f} +- {d:.2f}"
            for w, a, b, d in zip(nm, mine, mean, deviation, strict=True)
        )
    )
    assert np.abs(z).max() <= 1.0


def test_tables_meet_their_reference_values():
    assert media_density(np.array([450.0]), 30)[0] == pytest.approx(0.352, abs=0.002)
    assert media_density(np.array([450.0]), 70)[0] == pytest.approx(0.714, abs=0.002)
    assert blood_absorption(np.array([540.0]), 0.95)[0] == pytest.approx(28.33, abs=0.05)  # 1/mm
    assert blood_absorption(np.array([660.0]), 0.60)[0] == pytest.approx(0.79, abs=0.01)
    assert macular_density(np.array([450.0, 600.0])) == pytest.approx([0.952, 0.0], abs=0.01)


def test_arteries_and_veins_absorb_with_the_published_signs():
    nm = np.array(WAVELENGTHS)
    ratio = blood_absorption(nm, 0.58) / blood_absorption(nm, 0.96)
    vein_darker = np.isin(nm, [450, 510, *range(600, 781, 30)])
    artery_darker = np.isin(nm, [480, 540, *range(810, 901, 30)])
    assert (ratio[vein_darker] > 1).all() and (ratio[artery_darker] < 1).all()
    eyes = [simulate_cube(p, "OD", 0, 224, seed=4) for p in range(6)]
    spectra = region_spectra(
        np.stack([e.cube for e in eyes]), {k: np.stack([e.masks[k] for e in eyes]) for k in eyes[0].masks}
    )
    contrast = np.nanmean(spectra["background"][:, None] - np.stack([spectra["vein"], spectra["artery"]], 1), 0)
    red = list(nm).index(660)
    green = list(nm).index(570)
    odr_vein, odr_artery = contrast[:, red] / contrast[:, green]
    assert odr_vein > odr_artery, "veins lose more red light than arteries, relative to green"


def test_disc_is_brighter_and_flatter_than_perifovea():
    nm = np.array(WAVELENGTHS)
    some = (nm >= 500) & (nm <= 650)
    for patient in range(5):
        eye = simulate_cube(patient, "OS", 0, 64, seed=8)
        disc = eye.cube[:, eye.masks["disc"]].mean(1)[some]
        ring = eye.masks["fov"] & ~eye.masks["disc"] & ~eye.masks["vein"] & ~eye.masks["artery"]
        background = eye.cube[:, ring].mean(1)[some]
        assert (disc > background).all()
        assert disc[-1] / disc[0] < background[-1] / background[0]


def test_signature_has_the_amplitude_asked_for():
    nm = np.array(WAVELENGTHS)
    with_it = [simulate_cube(p, "OD", 0, 32, seed=3, amplitude=0.03, prevalence=1.0) for p in range(3)]
    without = [simulate_cube(p, "OD", 0, 32, seed=3, amplitude=0.0, prevalence=1.0) for p in range(3)]
    law = np.log(signature(nm, 0.03))
    inside = with_it[0].masks["fov"]
    for a, b in zip(with_it, without, strict=True):
        found = np.log(a.cube[:, inside].mean(1) / b.cube[:, inside].mean(1))
        assert found @ law / (law @ law) == pytest.approx(1.0, abs=0.05)
        assert np.abs(found[nm > 600]).max() < 1e-6
