"""The set statistics: equal to the field's definitions, blind to what does not matter, sharp for what does."""

from __future__ import annotations

import numpy as np
import pytest

from synthgen.quality.features.projection import Fingerprint
from synthgen.quality.sets.moments import frechet as frechet_of
from synthgen.quality.sets.moments import moments
from synthgen.quality.sets.null import (
    compare,
    disjoint_sets,
    family_of,
    null_distribution,
    some_patients,
)
from synthgen.quality.sets.statistics import Lens, Pair, dimension, wanted
from synthgen.quality.sets.table import Rows
from synthgen.science.bootstrap import owners, patient_weights

BANDS = 6


def make(patients: int, seed: int, shift: float = 0.0, eyes: int = 2) -> Rows:
    """Toy rows: coordinates and spectra of `patients`, whose eyes resemble each other."""
    rng, owner = np.random.default_rng(seed), np.repeat(np.arange(patients), eyes)

    def draw(*width: int) -> np.ndarray:
        return 0.8 * rng.normal(size=(patients, *width))[owner] + 0.6 * rng.normal(size=(len(owner), *width))

    columns = {"encoder": draw(13), "spectra": draw(11), "structures": draw(7)}
    for name in ("artery", "vein", "disc", "background"):
        columns[name] = -2 + 0.3 * draw(1) + 0.05 * draw(BANDS) + shift * np.linspace(0, 1, BANDS)
        columns[f"{name}_contrast"] = 0.05 * draw(BANDS)
        columns[f"{name}_extent"] = -3 + 0.2 * draw()
    return Rows.of(columns, owner)


@pytest.fixture(scope="module")
def lens() -> Lens:
    fit = make(100, 50)
    names = ("artery", "vein", "disc", "background")
    prints = {n: Fingerprint.fit(fit[n].astype(float)) for n in names}
    contrasts = {n: Fingerprint.fit(fit[f"{n}_contrast"].astype(float)) for n in names[:3]}
    return Lens(prints, contrasts, {"encoder": 10, "spectra": 8, "structures": 6})  # type: ignore[arg-type]


def test_values_equal_the_definitions(lens: Lens) -> None:
    x, y = make(30, 1, eyes=1), make(30, 2, eyes=1)
    pair = Pair(lens, x, y, 30)
    found = {name: value[0] for name, value in pair().items()}
    a, b = (np.concatenate([r["encoder"][:, :8], r["encoder"][:, 10:]], 1).astype(float) for r in (x, y))
    assert dimension(30, 10) == 8
    assert found["encoder_frechet"] == pytest.approx(frechet_of(moments(a), moments(b))[0])
    joint = [
        np.concatenate([f / np.sqrt(10), r["structures"].astype(float) / np.sqrt(6)], 1) for f, r in ((a, x), (b, y))
    ]
    assert found["joint_frechet"] == pytest.approx(frechet_of(*map(moments, joint))[0])


def test_without_structures_the_joint_space_is_the_encoders(lens: Lens) -> None:
    bare = Lens(lens.fingerprints, lens.contrasts, {"encoder": 10, "spectra": 8})
    found = Pair(bare, make(30, 1), make(30, 2), 60)()
    assert found["joint_frechet"] == pytest.approx(found["encoder_frechet"] / 10)


def test_weights_are_repetitions(lens: Lens) -> None:
    x, y = make(20, 1), make(20, 2)
    w = patient_weights(owners(x.patients, 40), np.random.default_rng(0), 2)
    rows = np.repeat(np.arange(40), w[1].astype(int))
    by_weight = Pair(lens, x, y, 40)(w, np.ones((2, 40)))
    written = Pair(lens, x.take(rows), y, 40)()
    for name, value in written.items():
        if name.endswith(("kid", "coverage")):
            continue  # whose neighbours and pairs are those of distinct cubes
        assert by_weight[name][1] == pytest.approx(value[0], rel=1e-6), name


def test_sets_are_disjoint_by_patient_and_full() -> None:
    patients = np.repeat(np.arange(40), np.random.default_rng(0).integers(1, 4, 40))
    both = disjoint_sets(patients, 25, np.random.default_rng(1))
    assert both is not None
    assert len(both[0]) == len(both[1]) == 25
    assert not set(patients[both[0]]) & set(patients[both[1]])
    assert disjoint_sets(patients, 60, np.random.default_rng(1)) is None
    assert len(set(some_patients(patients, 30, np.random.default_rng(2)))) == 30


@pytest.mark.slow
def test_limits_hold_for_real_cubes_and_a_shift_is_seen(lens: Lens) -> None:
    """Family-wise: of 60 fresh sets at most a handful exceed any limit; a shifted spectrum exceeds them all."""
    reference, rng = make(200, 3), np.random.default_rng(0)
    null = null_distribution(lens, reference, np.eye(4), 60, 80, rng)
    assert null is not None
    family = family_of({k: v for k, v in null.items() if k != "ms_ssim"})
    assert set(family.middle) == {n for n in null if wanted(n) and n != "ms_ssim"}
    limits = family.limits()
    stricter = family.limits(0.005)
    assert all(stricter[n] > limits[n] for n in limits)
    fails = 0
    for seed in range(60):
        found = compare(lens, reference, make(30, 100 + seed), 60, rng)
        fails += any(found[n].low > limits[n] for n in limits)
    assert fails <= 6
    shifted = compare(lens, reference, make(30, 7, shift=0.15), 60, rng)
    assert shifted["vein_spectrum"].low > limits["vein_spectrum"]
    assert shifted["encoder_kid"].low <= limits["encoder_kid"]


def test_an_absent_structure_has_no_value(lens: Lens) -> None:
    x, y = make(20, 1), make(20, 2)
    y.columns["vein"][5:] = np.nan
    found = Pair(lens, x, y, 40)()
    assert np.isnan(found["vein_level"][0]) and np.isnan(found["vein_spectrum"][0])
    assert np.isfinite(found["artery_level"][0]) and np.isfinite(found["vein_extent"][0])


def test_tables_join_without_mixing_patients() -> None:
    both = Rows.cat([make(3, 1), make(2, 2)])
    assert len(both) == 10 and len(set(both.patients.tolist())) == 5
    assert len(Rows.cat([])) == 0
