"""Ingest: what comes out is what went in, resampled, resized or cut, with its patient; what is refused is listed."""

import json

import h5py
import numpy as np
import pytest

from synthgen.cubes.cohort.cohort import Cohort, CohortWriter
from synthgen.cubes.ingest.resize import patch_corners, resize
from synthgen.cubes.ingest.run import ingest
from synthgen.cubes.wavelengths import parse_bands, resample
from synthgen.errors import ConfigError, InputError

NM = parse_bands("450:600:30")
C, SIDE = len(NM), 24
FINE = parse_bands("440:620:5")


def smooth(n=1, side=SIDE, bands=C, seed=0):
    """Smooth random cubes [n, bands, side, side] in 0.1-0.9."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    phase = rng.random((n, bands, 1, 1)) * 6
    return (0.5 + 0.4 * np.sin(4 * x + 3 * y + phase)).astype(np.float32)


def cohort(path, n=4, side=SIDE, nm=NM, round_field=False):
    cubes = smooth(n, side, len(nm))
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    fov = np.hypot(x, y) <= side / 2 if round_field else np.ones((side, side), bool)
    with CohortWriter(path, nm, side, side) as out:
        for i, cube in enumerate(cubes):
            masks = {"fov": fov, "artery": cube[0] > 0.6}
            out.append(cube * fov, f"p{i // 2}", eye="LR"[i % 2], visit=1, label=float(i // 2), masks=masks)
    return path


def npy(path, array):
    np.save(path, array)
    return path


def only(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.slow
def test_a_cohort_passes_unchanged(tmp_path):
    source = Cohort.open(cohort(tmp_path / "a.h5"))
    report = ingest([source.path], tmp_path / "o" / "b.h5")
    made = Cohort.open(tmp_path / "o" / "b.h5")
    assert made.content_hash == source.content_hash
    assert made.eye.tolist() == source.eye.tolist() and made.label.tolist() == source.label.tolist()
    assert all(np.array_equal(mask, source.masks()[name]) for name, mask in made.masks().items())
    assert (report.kept, report.patients, report.refused) == (4, 2, ())
    assert json.loads((tmp_path / "o" / "b.h5.ingest_report.json").read_text())["kept"] == 4
    assert "4 cubes of 2 patients" in report.lines()[0]


def test_bands_are_resampled_then_the_image_is_resized(tmp_path):
    source = Cohort.open(cohort(tmp_path / "a.h5", nm=FINE))
    report = ingest([source.path], tmp_path / "b.h5", size=12, bands="450:600:30")
    made = Cohort.open(tmp_path / "b.h5")
    assert made.wavelengths == NM and (made.height, made.width) == (12, 12)
    expected = resize(resample(source.cubes()[2], FINE, NM), 12)
    assert np.abs(made.cubes()[2] - expected).max() < 1e-5
    mean = source.masks()["artery"][2].reshape(12, 2, 12, 2).mean((1, 3))
    clear = np.abs(mean - 0.5) > 0.3
    assert np.array_equal(made.masks()["artery"][2][clear], (mean >= 0.5)[clear])
    assert report.sources[0].resampled


def test_resizing_does_not_alias():
    stripes = np.tile((np.arange(64) % 2).astype(np.float32), (1, 64, 1))
    small = resize(stripes, 16)
    assert np.abs(small[..., 1:-1] - 0.5).max() < 0.05
    assert resize(np.full((2, 10, 14), 0.3, np.float32), 5) == pytest.approx(np.full((2, 5, 5), 0.3))


def test_patches_stay_with_their_patient_and_masks(tmp_path):
    source = Cohort.open(cohort(tmp_path / "a.h5", round_field=True))
    report = ingest([source.path], tmp_path / "b.h5", size=8, patches=True, min_fov=0.75)
    made = Cohort.open(tmp_path / "b.h5")
    corners = patch_corners(SIDE, SIDE, 8, 8)
    kept = [c for c in corners if source.masks()["fov"][0][c[0] : c[0] + 8, c[1] : c[1] + 8].mean() >= 0.75]
    assert len(corners) == 9 and len(kept) == 5 and report.dropped_patches == 4 * 4
    assert len(made) == 4 * 5 and made.patients == source.patients
    for k, (top, left) in enumerate(kept):
        window = np.s_[..., top : top + 8, left : left + 8]
        assert np.abs(made.cubes()[5 + k] - source.cubes()[1][window]).max() < 1e-6
        assert np.array_equal(made.masks()["artery"][5 + k], source.masks()["artery"][1][window])
    assert made.patient_id.tolist() == ["p0"] * 10 + ["p1"] * 10


def test_stride_and_centred_grid():
    assert patch_corners(10, 10, 4, 4) == [(1, 1), (1, 5), (5, 1), (5, 5)]
    assert len(patch_corners(24, 24, 8, 4)) == 25
    assert patch_corners(7, 24, 8, 8) == []


def test_without_a_mask_the_dark_frame_is_outside(tmp_path):
    cube = smooth()[0]
    cube[:, :, :16] = 0
    path = npy(tmp_path / "a.npy", cube)
    given = {"source_wavelengths": NM, "each_file_a_patient": True}
    assert ingest([path], tmp_path / "b.h5", size=8, patches=True, **given).kept == 3
    with pytest.raises(InputError, match="no patch has enough"):
        ingest([npy(tmp_path / "a.npy", cube[:, :, :18])], tmp_path / "c.h5", size=8, patches=True, **given)


@pytest.mark.parametrize(
    ("array", "scale", "full", "origin"),
    [
        (smooth(), None, 1, "already"),
        ((smooth() * 4000).astype(np.uint16), 4095, 4095, "given"),
        (smooth() * 87.3, 100, 100, "given"),
        ((smooth() * 5000).astype(np.int32), 5000, 5000, "given"),
        ((smooth() * 5000).astype(np.int32), 1 / 5000, 5000, "given"),
    ],
)
def test_scale_is_certain_or_given_and_reported(tmp_path, array, scale, full, origin):
    path = npy(tmp_path / "a.npy", array)
    report = ingest([path], tmp_path / "b.h5", source_wavelengths=NM, each_file_a_patient=True, scale=scale)
    source = report.sources[0]
    assert source.full_scale == pytest.approx(full) and origin in source.scale_from
    assert np.abs(Cohort.open(tmp_path / "b.h5").cubes() - np.clip(array / full, 0, 1)).max() < 1e-4


def test_one_given_scale_holds_for_all_files(tmp_path):
    for name, top in (("a", 900), ("b", 3000)):
        npy(tmp_path / f"{name}.npy", (smooth() * top).astype(np.uint16))
    given = {"source_wavelengths": NM, "each_file_a_patient": True}
    with pytest.raises(InputError, match="does not state which value means reflectance 1"):
        ingest([tmp_path], tmp_path / "o" / "o.h5", **given)
    report = ingest([tmp_path], tmp_path / "o.h5", scale=4095, **given)
    assert [s.full_scale for s in report.sources] == [4095, 4095]


def test_what_is_clipped_is_counted(tmp_path):
    cube = smooth()
    cube[0, 0, :6], cube[0, 1, :3] = 1.2, -0.1
    path = npy(tmp_path / "a.npy", cube)
    given = {"source_wavelengths": NM, "each_file_a_patient": True, "max_saturation": 1}
    report = ingest([path], tmp_path / "b.h5", scale=1, **given)
    assert report.clipped_above == pytest.approx(6 / 24 / C) and report.clipped_below == pytest.approx(3 / 24 / C)
    report = ingest([path], tmp_path / "b.h5", scale=2.0, **given)
    assert report.clipped_above == 0


def test_patients_from_names_and_from_a_table(tmp_path):
    for name in ("eye_07_L.npy", "eye_07_R.npy", "eye_12_L.npy"):
        npy(tmp_path / name, smooth())
    given = {"source_wavelengths": NM}
    with pytest.raises(InputError, match="patients unknown"):
        ingest([tmp_path], tmp_path / "out" / "o.h5", **given)
    ingest([tmp_path], tmp_path / "out" / "o.h5", patient_pattern=r"eye_(\d+)_", **given)
    assert Cohort.open(tmp_path / "out" / "o.h5").patient_id.tolist() == ["07", "07", "12"]
    table = tmp_path / "who.csv"
    table.write_text("file,patient,label,eye,visit\neye_07_L.npy,A,1,L,2\neye_12_L.npy,B,,R,\n")
    report = ingest([tmp_path], tmp_path / "out" / "o.h5", patient_table=table, **given)
    made = Cohort.open(tmp_path / "out" / "o.h5")
    assert made.patient_id.tolist() == ["A", "B"] and made.eye.tolist() == ["L", "R"]
    assert made.label[0] == 1 and np.isnan(made.label[1]) and made.visit.tolist() == [2, -1]
    assert [r.path for r in report.refused] == [str(tmp_path / "eye_07_R.npy")]
    for text in ("file\na.npy\n", "file,patient\na.npy,\n", "file,patient,visit\na.npy,A,x\n", "", "file,patient\n"):
        table.write_text(text)
        with pytest.raises(InputError, match=r"who\.csv"):
            ingest([tmp_path], tmp_path / "out" / "o.h5", patient_table=table, **given)


def test_a_bad_cube_is_left_out_and_listed(tmp_path):
    cubes = smooth(4)
    cubes[1, 2, 3:6] = np.nan
    cubes[2, 4] = 0
    path = npy(tmp_path / "a.npy", cubes)
    report = ingest([path], tmp_path / "b.h5", source_wavelengths=NM, each_file_a_patient=True)
    assert report.kept == 2 and [r.cube for r in report.refused] == [1, 2]
    assert "NaN" in report.refused[0].reason and "510 nm" in report.refused[0].reason
    assert "empty bands" in report.refused[1].reason and "570 nm" in report.refused[1].reason
    assert np.abs(Cohort.open(tmp_path / "b.h5").cubes() - cubes[[0, 3]]).max() < 1e-5


def test_bad_files_among_good_ones_are_listed_alone_they_are_errors(tmp_path):
    good = cohort(tmp_path / "good.h5")
    broken = tmp_path / "broken.h5"
    broken.write_bytes(good.read_bytes()[:3000])
    other = cohort(tmp_path / "other.h5", nm=FINE)
    large = cohort(tmp_path / "large.h5", side=30)
    out = tmp_path / "o" / "o.h5"
    report = ingest([good, broken, other, large, tmp_path / "none.h5", good], out)
    assert report.kept == 4 and len(report.refused) == 4
    assert [r.path.rsplit("/", 1)[1] for r in report.refused] == ["broken.h5", "other.h5", "large.h5", "none.h5"]
    assert all("found" in r.reason or "no such" in r.reason for r in report.refused)
    assert ingest([good, other, large], out, bands="450:600:30", size=16).kept == 12
    for bad in (broken, tmp_path / "none.h5"):
        (tmp_path / "new").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=bad.name):
            ingest([bad], tmp_path / "new" / "o.h5")
        with pytest.raises(InputError, match="nothing usable"):
            ingest([bad, tmp_path / "nothing.h5"], tmp_path / "new" / "o.h5")
        assert only(tmp_path / "new") == []


def test_hdf5_cubes_without_wavelengths_or_patients_are_mended_by_telling(tmp_path):
    path = cohort(tmp_path / "a.h5")
    with h5py.File(path, "r+") as f:
        del f["wavelengths_nm"], f["patient_id"]
    with pytest.raises(InputError, match="wavelengths absent"):
        ingest([path], tmp_path / "b.h5")
    with pytest.raises(InputError, match="patients unknown"):
        ingest([path], tmp_path / "b.h5", source_wavelengths="450:600:30")
    ingest([path], tmp_path / "b.h5", source_wavelengths="450:600:30", each_file_a_patient=True)
    made = Cohort.open(tmp_path / "b.h5")
    assert made.patients == ("a",) and made.mask_names == ("artery", "fov")


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"bands": "300:600:30"}, "outside the wavelengths"),
        ({"bands": "rubbish"}, "cannot be read"),
        ({"size": 0}, "'size'"),
        ({"sizes": 8}, "did you mean 'size'"),
        ({"patches": True}, "need a size"),
        ({"patches": True, "size": 99}, "smaller than a patch"),
        ({"patient_pattern": "("}, "not a regular expression"),
        ({"patient_pattern": "a"}, "no group"),
        ({"scale": 0.0}, "positive"),
        ({"source_wavelengths": (450, 480)}, "wrong number of wavelengths"),
        ({"patient_table": "none.csv"}, "no such file"),
    ],
)
def test_wrong_settings_are_named_and_leave_nothing(tmp_path, settings, finding):
    (tmp_path / "o").mkdir()
    with pytest.raises((InputError, ConfigError), match=f"(?i){finding}"):
        ingest([cohort(tmp_path / "a.h5")], tmp_path / "o" / "b.h5", **settings)
    assert only(tmp_path / "o") == []


def test_source_and_result_must_differ_and_an_empty_folder_is_reported(tmp_path):
    path = cohort(tmp_path / "a.h5")
    with pytest.raises(InputError, match="both source and result"):
        ingest([path], path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no files"):
        ingest([tmp_path / "empty"], tmp_path / "b.h5")


def test_a_stop_in_the_middle_leaves_the_old_file_and_can_be_gone_on_from(tmp_path, monkeypatch):
    path, out = cohort(tmp_path / "a.h5"), tmp_path / "o" / "b.h5"
    ingest([path], out)
    before, names = out.read_bytes(), only(out.parent)
    append, calls = CohortWriter.append_stored, []

    def stop_at_third(self, *args, **more):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        append(self, *args, **more)

    monkeypatch.setattr(CohortWriter, "append_stored", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        ingest([path], out, size=8)
    assert out.read_bytes() == before and only(out.parent) == sorted([*names, "b.h5.partial"])
    monkeypatch.setattr(CohortWriter, "append_stored", append)
    with pytest.raises(ConfigError, match=r"(?i)unfinished ingest with another 'size'.*add --restart"):
        ingest([path], out, size=9)
    assert ingest([path], out, size=8).kept == 4 and Cohort.open(out).height == 8
    assert "b.h5.partial" not in only(out.parent)


def test_an_oblong_image_keeps_its_central_square_and_says_so(tmp_path):
    cube = smooth(1, 24)[0][:, 4:20]
    report = ingest(
        [npy(tmp_path / "a.npy", cube)], tmp_path / "b.h5", size=16, source_wavelengths=NM, each_file_a_patient=True
    )
    assert np.abs(Cohort.open(tmp_path / "b.h5").cubes()[0] - cube[:, :, 4:20]).max() < 1e-5
    assert any("central square" in note for note in report.notes)
