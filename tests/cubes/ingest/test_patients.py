"""Who is on a cube: patient, eye, visit and label from the names of files."""

import numpy as np
import pytest

from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.phantom.simulate import simulate_cube
from synthgen.errors import SynthgenError

NM = tuple(450.0 + 30 * i for i in range(16))


def test_a_pattern_with_named_groups(tmp_path):
    cube = simulate_cube(1, "OD", size=64, seed=1).cube
    for name in ("eye_OS_v2_amyloid1_AB7.npy", "eye_OD_v3_amyloid0_AB7.npy", "eye_OD_v1_amyloid0_C9.npy"):
        np.save(tmp_path / name, cube)
    pattern = r"_(?P<eye>O[DS])_v(?P<visit>\d)_amyloid(?P<label>\d)_(?P<patient>\w+)\."
    report = ingest([tmp_path], tmp_path / "o" / "o.h5", patient_pattern=pattern, source_wavelengths=NM)
    made = Cohort.open(tmp_path / "o" / "o.h5")
    assert made.patient_id.tolist() == ["C9", "AB7", "AB7"] and made.eye.tolist() == ["OD", "OD", "OS"]
    assert made.visit.tolist() == [1, 3, 2] and made.label.tolist() == [0, 0, 1]
    assert report.split is None and any("fewer than 3 patients" in n for n in report.notes)
    for wrong, found in (
        (r"(?P<who>\d)", "unknown name 'who'"),
        (r"(?P<visit>[a-z]+)_(?P<patient>O[DS])", "no number"),
    ):
        with pytest.raises(SynthgenError, match=found):
            ingest([tmp_path], tmp_path / "o" / "p.h5", patient_pattern=wrong, source_wavelengths=NM)
