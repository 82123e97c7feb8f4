"""The ceiling learns a planted target from labels and judges only patients that it has not learned from."""

import numpy as np
import pytest

from synthgen.cubes.reflectance import band_statistics
from synthgen.ssl.evaluation.ceiling import ceiling
from synthgen.ssl.evaluation.intervals import patient_draws, scored
from synthgen.ssl.evaluation.targets import Target

pytestmark = pytest.mark.slow
PATIENTS, PATIENT = 48, np.repeat(np.arange(48), 2)


def planted():
    """Cubes [96, 3, 32, 32] whose third band is bright with `level` of the patient; the second target is noise."""
    rng = np.random.default_rng(0)
    level, noise = rng.normal(size=PATIENTS), rng.normal(size=PATIENTS)
    cubes = rng.uniform(0.1, 0.2, (2 * PATIENTS, 3, 32, 32)).astype(np.float32)
    cubes[:, 2] *= np.exp(0.5 * level[PATIENT])[:, None, None]
    return cubes, level, noise


def test_a_planted_target_is_learned_and_noise_is_not():
    cubes, level, noise = planted()
    every, some = np.arange(PATIENTS), np.arange(5, PATIENTS)
    bright = Target("bright", every, (level > 0)[:, None].astype(float), classes=("no", "yes"))
    targets = [Target("level", every, level[:, None]), Target("noise", some, noise[some, None]), bright]
    read = lambda rows: cubes[rows]
    how = {"name": "test_resnet", "size": 32, "statistics": band_statistics(cubes), "steps": 60}
    predicted = ceiling(read, PATIENT, targets, **how)
    draws = patient_draws(PATIENTS)
    found = {t.name: scored(t, [predicted[t.name]], draws).value for t in targets}
    assert found["level"] > 0.6 and found["bright"] > 0.85 and found["noise"] < 0.3
    assert predicted["noise"].values.shape == (1, PATIENTS - 5, 1) and np.isfinite(predicted["noise"].values).all()


def test_the_judged_have_no_part_in_what_judges_them():
    """Other values of the second half leave what is reported of that half as it was."""
    cubes, level, _ = planted()
    how = {"name": "test_resnet", "size": 32, "statistics": band_statistics(cubes), "steps": 3}
    target = lambda y: Target("y", np.arange(PATIENTS), y[:, None])
    say = lambda y: ceiling(lambda rows: cubes[rows], PATIENT, [target(y)], **how)["y"]
    first = say(level)
    half = first.reference[0, :, 0] == first.reference[0, 0, 0]  # judged by one network
    changed = say(np.where(half, level + 5, level))
    assert half.sum() == PATIENTS / 2 and np.array_equal(first.values[:, half], changed.values[:, half])
    assert not np.array_equal(first.values[:, ~half], changed.values[:, ~half])
