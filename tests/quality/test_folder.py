"""Calibration on small toy cohorts: the folder, its hash, what does not fit, and what cannot be certified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from synthgen.command_line.command import Command
from synthgen.contracts import Status
from synthgen.cubes.cohort.cohort import CohortWriter
from synthgen.cubes.cohort.splits import Split
from synthgen.errors import InputError, LeakError, MismatchError
from synthgen.quality.calibrate import Calibration, _authenticity, calibrate
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.per_cube.acceptance import COPY, AcceptanceCounts
from synthgen.quality.sets.table import Rows

pytestmark = pytest.mark.slow  # one fixture of all takes seconds

BANDS, SIZE = 6, 24
WAVELENGTHS = tuple(500.0 + 50 * k for k in range(BANDS))


def toy_cubes(count: int, seed: int) -> np.ndarray:
    """Smooth random fields, one spectrum per cube: float32 [count, BANDS, SIZE, SIZE]."""
    draw = torch.Generator().manual_seed(seed)
    field = 0.3 * torch.randn(count, BANDS, 5, 5, generator=draw)
    level = 0.1 * torch.randn(count, BANDS, 1, 1, generator=draw) - 2
    logs = torch.nn.functional.interpolate(field + level, size=SIZE, mode="bicubic")
    return torch.exp(logs + 0.02 * torch.randn(logs.shape, generator=draw)).clamp(0, 1).numpy()


def toy_cohort(path: Path, patients: int) -> Split:
    cubes = toy_cubes(2 * patients, 0)
    with CohortWriter(path, WAVELENGTHS, SIZE, SIZE) as writer:
        for i, cube in enumerate(cubes):
            writer.append(cube, f"patient-{i // 2:03d}")
    names = tuple(f"patient-{i:03d}" for i in range(patients))
    return Split(names[: patients // 2], names[patients // 2 : -1], names[-1:])


def settings(folder: Path, **more) -> Calibration:
    paths = {"data": str(folder / "toy.h5"), "out": str(folder / "gates")}
    quick = {"sizes": (25,), "resamples": 40, "encoder_steps": 3, "memorization_steps": 30, "plausible_alpha": 0.05}
    return Calibration(**{**quick, **paths, **more})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Gates]:
    folder = tmp_path_factory.mktemp("toy")
    split = toy_cohort(folder / "toy.h5", 44)
    return folder, calibrate(settings(folder), split)


def test_gates_read_back_judge_alike(made: tuple[Path, Gates]) -> None:
    folder, gates = made
    again = load_gates(folder / "gates")
    assert again.hash == gates.hash and again.limits == gates.limits
    cubes = torch.from_numpy(toy_cubes(30, 5))
    assert again(cubes).accept.tolist() == gates(cubes).accept.tolist()
    assert again.judge(cubes)[0] == gates.judge(cubes)[0]
    assert {p.name for p in (folder / "gates").iterdir()} == {
        "gates.json", "bases.safetensors", "copies.safetensors", "encoder.safetensors", "reference.safetensors"
    }  # fmt: skip


def test_calibration_repeats_itself(made: tuple[Path, Gates], tmp_path: Path) -> None:
    split = toy_cohort(tmp_path / "toy.h5", 44)
    assert calibrate(settings(tmp_path), split).hash == made[1].hash


def test_no_patient_is_named_in_the_folder(made: tuple[Path, Gates]) -> None:
    folder, gates = made
    for path in (folder / "gates").iterdir():
        assert b"patient-" not in path.read_bytes()
    assert gates.provenance.seen([f"patient-{i:03d}" for i in (0, 42, 43)]) == [
        "patient-000",
        "patient-042",  # the test patient 43 was not
    ]


def test_verdict_is_json(made: tuple[Path, Gates]) -> None:
    verdict = made[1].judge(toy_cubes(30, 5), generator_hash="g")[0]
    text = json.dumps(verdict.model_dump(mode="json"))
    assert type(verdict).model_validate_json(text) == verdict
    assert verdict.gates_hash == made[1].hash and verdict.generator_hash == "g"


def test_a_verdict_names_its_embeddings(made: tuple[Path, Gates]) -> None:
    learned, untrained = made[1].judge(toy_cubes(30, 5))[0].embeddings
    assert learned.hash == made[1].instruments.encoder.hash and learned.dimension > 1
    assert "cohort" in learned.trained_on and "untrained" in untrained.trained_on


def test_bands_outside_the_segmenters_range_cannot_certify_structures(made: tuple[Path, Gates]) -> None:
    checks = made[1].judge(toy_cubes(60, 5))[0].checks
    unread = {c.name: c for c in checks if c.name in ("artery", "vein", "disc")}
    assert {c.status for c in unread.values()} == {Status.UNDECIDED}
    assert "cannot certify" in unread["vein"].reason
    assert {c.status for c in checks if c.name.startswith("background")} == {Status.PASS}


def test_rows_of_other_gates_are_refused(made: tuple[Path, Gates]) -> None:
    _, rows, acceptance = made[1].judge(toy_cubes(30, 5))
    other = Rows(rows.columns, rows.patients, "other gates")
    with pytest.raises(MismatchError, match="computed by other gates"):
        made[1].certify(other, acceptance, None)


def test_a_verdict_among_many_is_held_to_wider_limits(made: tuple[Path, Gates]) -> None:
    _, rows, acceptance = made[1].judge(toy_cubes(60, 5))
    alone, among = (made[1].certify(rows, acceptance, None, alpha=a).checks for a in (0.05, 0.005))
    limits = [(a.limit, b.limit) for a, b in zip(alone, among, strict=True) if a.name.endswith(("shape", "kid"))]
    assert limits and all(a < b for a, b in limits)


def test_copies_are_rejected_with_the_reason(made: tuple[Path, Gates]) -> None:
    cubes = torch.from_numpy(toy_cubes(8, 0))  # the first training cubes
    admission = made[1](cubes)
    assert not admission.accept.any() and set(admission.reasons) == {COPY}
    assert admission.scores["nearest"].tolist() == list(range(8))


def test_broken_cubes_are_rejected_with_the_reason(made: tuple[Path, Gates]) -> None:
    cubes = torch.from_numpy(toy_cubes(6, 5))
    cubes[0, 2, 3, 3] = float("nan")
    cubes[1, 0, 0, 0] = float("inf")
    cubes[2] = cubes[2] - 0.5
    cubes[3, 4] = 0.2
    cubes[4, :, : SIZE // 2] = 0
    cubes[5, 1] = (cubes[5, 1] * 4).clamp(0, 1)
    assert made[1](cubes).reasons == (
        "not finite",
        "not finite",
        "reflectance out of range",
        "constant band",
        "field of view unlike any real one",
        "spectrum outside the real envelope",
    )


def test_an_empty_batch_is_admitted(made: tuple[Path, Gates]) -> None:
    assert made[1](torch.zeros(0, BANDS, SIZE, SIZE)).accept.tolist() == []


def test_a_few_cubes_are_undecided(made: tuple[Path, Gates]) -> None:
    verdict = made[1].judge(toy_cubes(10, 5))[0]
    few = next(c for c in verdict.checks if c.name == "set")
    assert few.status == Status.UNDECIDED and "at least 25" in few.reason


def test_other_bands_size_or_wavelengths_do_not_fit(made: tuple[Path, Gates]) -> None:
    gates = made[1]
    for shape in ((1, BANDS - 1, SIZE, SIZE), (1, BANDS, SIZE, SIZE + 8)):
        with pytest.raises(MismatchError, match=r"another shape.*Calibrate gates"):
            gates(torch.zeros(shape))
        with pytest.raises(MismatchError):
            gates.judge(torch.zeros(shape))
    with pytest.raises(MismatchError, match="wavelengths"):
        gates.must_fit(torch.zeros(1, BANDS, SIZE, SIZE), [w + 5 for w in WAVELENGTHS])


def test_altered_damaged_and_missing_files_are_refused(made: tuple[Path, Gates], tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        shutil.copytree(made[0] / "gates", tmp_path / name)
        return tmp_path / name

    with pytest.raises(InputError, match="no such folder"):
        load_gates(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a gates folder"):
        load_gates(tmp_path / "empty")
    loose = copy("loose") / "gates.json"
    about = json.loads(loose.read_text())
    about["authenticity"]["limit"] = 0.0
    loose.write_text(json.dumps(about))
    with pytest.raises(InputError, match="altered"):
        load_gates(loose.parent)
    bank = copy("bank") / "copies.safetensors"
    data = bytearray(bank.read_bytes())
    data[-1] ^= 1
    bank.write_bytes(bytes(data))
    with pytest.raises(InputError, match="altered"):
        load_gates(bank.parent)
    bank.write_bytes(bytes(data[:50]))
    with pytest.raises(InputError, match=r"copies\.safetensors.*damaged"):
        load_gates(bank.parent)
    bank.unlink()
    with pytest.raises(InputError, match="missing"):
        load_gates(bank.parent)


def test_too_few_patients_cannot_certify(tmp_path: Path) -> None:
    """Ten calibration patients give no limit at 5 %: nothing is rejected as a copy, and nothing passes."""
    split = toy_cohort(tmp_path / "toy.h5", 22)
    gates = calibrate(settings(tmp_path, plausible_alpha=0.01), split)
    assert gates.limits.authenticity.limit is None and gates.limits.plausible.limits is None
    assert gates(torch.from_numpy(toy_cubes(8, 0))).accept.all()
    verdict = gates.judge(toy_cubes(30, 5))[0]
    assert verdict.status == Status.UNDECIDED
    assert "10 calibration patients, 19 needed" in verdict.reason
    plausible = next(c for c in verdict.checks if c.name == "plausibility")
    assert plausible.status == Status.UNDECIDED and "15 patients, 99 needed" in plausible.reason
    assert gates.limits.sets == ()  # 30 cubes have no two disjoint sets of 25
    with pytest.raises(InputError, match="too few training patients"):
        calibrate(settings(tmp_path), Split(split.train[:2], split.calibration, split.test))


def test_more_unseen_patients_join_the_reference(made: tuple[Path, Gates], tmp_path: Path) -> None:
    split = toy_cohort(tmp_path / "toy.h5", 44)
    with CohortWriter(tmp_path / "more.h5", WAVELENGTHS, SIZE, SIZE) as writer:
        for i, cube in enumerate(toy_cubes(20, 9)):
            writer.append(cube, f"q{i}")
    gates = calibrate(settings(tmp_path, unseen=(str(tmp_path / "more.h5"),)), split)
    assert len(gates.reference) == len(made[1].reference) + 20
    assert gates.limits.authenticity.patients == made[1].limits.authenticity.patients + 20
    assert gates.provenance.seen(["q3", "patient-043"]) == ["q3"]
    with pytest.raises(InputError, match="unseen cohort has patients of the first"):
        calibrate(settings(tmp_path, unseen=(str(tmp_path / "toy.h5"),)), split)


def test_the_set_gates_count_copies(made: tuple[Path, Gates]) -> None:
    """Many proposals at training cubes fail the set, whatever the admitted ones look like."""
    _, rows, acceptance = made[1].judge(toy_cubes(60, 5))
    acceptance.merge(AcceptanceCounts(20, 0, 20, scores=[0.0] * 20))
    verdict = made[1].certify(rows, acceptance, None)
    assert next(c for c in verdict.checks if c.name == "memorization").status == Status.FAIL


def test_command_line(tmp_path: Path, synthgen) -> None:
    toy_cohort(tmp_path / "toy.h5", 44)
    arguments = ["--data", str(tmp_path / "toy.h5"), "--out", str(tmp_path / "gates"), "--sizes", "[25]"]
    code, printed, _ = synthgen(
        "calibrate", *arguments, "--resamples", "40", "--encoder-steps", "2", "--memorization-steps", "5"
    )
    assert code == 0
    assert "6 calibration patients, 19 needed" in printed or "7 calibration patients, 19 needed" in printed
    assert load_gates(tmp_path / "gates").size == SIZE
    assert synthgen("calibrate", *arguments, "--resample", "40")[0] == 2


def test_networks_of_other_gates_can_be_given(made: tuple[Path, Gates], tmp_path: Path) -> None:
    """Of the same cohort they have seen the patients to be calibrated on only where the halves differ."""
    split = toy_cohort(tmp_path / "toy.h5", 44)
    given = str(made[0] / "gates")
    gates = calibrate(settings(tmp_path, encoder=given, memorization=given), split)
    assert gates.instruments.encoder.hash == made[1].instruments.encoder.hash
    assert torch.equal(gates.memorization.codes, made[1].memorization.codes)
    turned = Split(split.calibration, split.train, split.test)
    with pytest.raises(LeakError, match="encoder was trained on"):
        calibrate(settings(tmp_path, encoder=given), turned)


def test_the_recipe_of_the_packaged_gates_is_valid() -> None:
    recipe = Path(__file__).parents[2] / "configs" / "phantom64_gates.yaml"
    config = Command(Calibration, "t").read(["--config", str(recipe), "--resamples", "50"])
    assert config.unseen == ("data/unseen64.h5",) and config.resamples == 50


@pytest.mark.parametrize("score", [0.0, 0.05])
def test_a_detector_that_cannot_tell_patients_apart_certifies_nothing(score: float) -> None:
    """Fresh cubes as near to training cubes as copies: a limit of zero would let every copy through."""
    near = Rows.of({"score": np.full(60, score)}, np.arange(60))
    found = _authenticity(near, 0.05)
    assert found.limit is None and "as near" in found.note
    assert _authenticity(Rows.of({"score": np.full(60, 0.8)}, np.arange(60)), 0.05).limit == pytest.approx(0.8)
