"""Planted faults are caught and fresh patients are not: the gates calibrated and judged on simulated eyes."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import binom

from synthgen.contracts import Status
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import split_patients
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.cubes.reflectance import LOG_FLOOR
from synthgen.quality.calibrate import Calibration, calibrate
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.per_cube.acceptance import AcceptanceCounts
from synthgen.quality.per_cube.memorization import shift

SIZE, ALPHA, PLAUSIBLE_ALPHA = 64, 0.05, 0.05


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Gates, torch.Tensor, Cohort]:
    """Gates from 58 patients (36 train, 22 calibration) and 24 more; their training cubes; 32 patients never seen."""
    folder = tmp_path_factory.mktemp("gates")
    torch.set_num_threads(1)
    cohort = simulate_cohort(folder / "real.h5", patients=60, size=SIZE, seed=11, workers=1)
    more = simulate_cohort(folder / "more.h5", patients=24, size=SIZE, seed=13, workers=1)
    fresh = simulate_cohort(folder / "fresh.h5", patients=32, size=SIZE, seed=12, workers=1)
    split = split_patients(cohort.patients, (0.6, 0.37, 0.03))
    calibrate(
        Calibration(
            data=str(cohort.path),
            out=str(folder / "gates"),
            unseen=(str(more.path),),
            sizes=(50,),
            resamples=80,
            encoder_steps=60,
            memorization_steps=120,
            segmenter_steps=0,
            plausible_alpha=PLAUSIBLE_ALPHA,
        ),
        split,
    )
    train = torch.from_numpy(cohort.cubes(cohort.index_of(split.train)))
    return load_gates(folder / "gates"), train, fresh


@pytest.fixture(scope="module")
def fresh(world: tuple[Gates, torch.Tensor, Cohort]) -> torch.Tensor:
    return torch.from_numpy(world[2].cubes())


def noisy(x: torch.Tensor) -> torch.Tensor:
    return (x * (1 + 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))).clamp(0, 1)


FORMS = {
    "exact": lambda x: x,
    "flipped": lambda x: x.flip(3),
    "upside down": lambda x: x.flip(2),
    "gain 0.9": lambda x: 0.9 * x,
    "shift 2": lambda x: shift(x, 2, -2),
    "shift 1": lambda x: shift(x, 0, 1),
    "flipped, shifted and darker": lambda x: 0.9 * shift(x.flip(3), -2, 0),
    "noise 3 %": noisy,
    "one band replaced": lambda x: torch.cat([x[:, :7], x[:, 6:7], x[:, 8:]], 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_copies_are_rejected(world: tuple[Gates, torch.Tensor, Cohort], form: str) -> None:
    gates, train, _ = world
    assert (~gates(FORMS[form](train)).accept).float().mean() >= 0.95


@pytest.mark.slow
def test_fresh_patients_are_rejected_at_about_alpha(world: tuple[Gates, torch.Tensor, Cohort], fresh) -> None:
    """Two eyes of a patient are counted as if they were one: the wider interval is the honest one."""
    admission, patients = world[0](fresh), len(fresh) // 2
    assert int(admission.scores["copy"].sum()) / 2 <= binom.ppf(0.999, patients, ALPHA)
    assert int((~admission.accept).sum()) / 2 <= binom.ppf(0.999, patients, ALPHA + 3 * PLAUSIBLE_ALPHA)


@pytest.mark.slow
def test_a_fresh_real_set_is_not_failed(world: tuple[Gates, torch.Tensor, Cohort], fresh) -> None:
    """No check fails; the Frechet ratio and the copies stay undecided, for want of cubes and of proposals."""
    verdict = world[0].judge(fresh)[0]
    states = {c.name: c.status for c in verdict.checks}
    assert Status.FAIL not in states.values(), verdict.reason
    assert states.pop("memorization") == Status.UNDECIDED
    unsure = {name for name, state in states.items() if state == Status.UNDECIDED}
    assert unsure <= {"joint_frechet_ratio"} and verdict.status == Status.UNDECIDED
    wanted = {"copying_ct", "acceptance", "acceptance_per_stratum", "ms_ssim_3_difference", "encoder_kid", "vein_shape"}
    assert wanted <= set(states)
    assert all(c.reason for c in verdict.checks)


def blurred(x: torch.Tensor, _: Cohort) -> torch.Tensor:
    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, 1, 1)))


def swapped(x: torch.Tensor, _: Cohort) -> torch.Tensor:
    order = list(range(x.shape[1]))
    order[5], order[6] = order[6], order[5]
    return x[:, order]


def tilted(x: torch.Tensor, fresh: Cohort) -> torch.Tensor:
    """Log-reflectance at 450 nm down by 0.3, falling off as the fourth power of the wavelength, to 585 nm."""
    nm = torch.tensor(fresh.wavelengths)
    return x * torch.exp(-0.3 * (450 / nm) ** 4 * (nm <= 585))[:, None, None]


def exchanged(x: torch.Tensor, fresh: Cohort) -> torch.Tensor:
    """The mean spectra of arteries and veins of each eye, one in the place of the other."""
    logs, masks = (x + LOG_FLOOR).log().clone(), fresh.masks()
    for cube, artery, vein in zip(logs, masks["artery"], masks["vein"], strict=True):
        only_artery, only_vein = torch.from_numpy(artery & ~vein), torch.from_numpy(vein & ~artery)
        difference = (cube[:, only_artery].mean(1) - cube[:, only_vein].mean(1))[:, None]
        cube[:, only_artery] -= difference
        cube[:, only_vein] += difference
    return (logs.exp() - LOG_FLOOR).clamp(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [blurred, swapped, tilted, exchanged])
def test_faulty_sets_fail(world: tuple[Gates, torch.Tensor, Cohort], fresh, fault) -> None:
    """Judged as if the per-cube gates had let all of it pass."""
    assert failed(world[0], fault(fresh, world[2]))


@pytest.mark.slow
def test_a_few_cubes_again_and_again_fail_in_diversity(world: tuple[Gates, torch.Tensor, Cohort], fresh) -> None:
    two, five = (failed(world[0], fresh[:k].repeat(60 // k, 1, 1, 1)) for k in (2, 5))
    assert {"ms_ssim_3_difference", "encoder_vendi"} <= two
    assert {"encoder_coverage", "encoder_vendi"} & five


def failed(gates: Gates, cubes: torch.Tensor) -> set[str]:
    admission = gates(cubes)
    rows = gates.rows(admission, everything=True)
    acceptance = AcceptanceCounts(len(cubes), len(cubes), scores=[1.0] * len(cubes))
    verdict = gates.certify(rows, acceptance, gates.similarity(cubes))
    return {c.name for c in verdict.checks if c.status == Status.FAIL}
