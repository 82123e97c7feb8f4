"""What is given to an ingest has an effect or is refused, and what it says can be printed and is true."""

import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from synthgen.cli import app as cli
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.ingest.report import IngestReport, Refusal, print_table
from synthgen.cubes.ingest.run import ingest
from synthgen.runs import progress
from tests.formats import export_cube

NM = (450.0, 500.0, 550.0)
CUBE = np.random.default_rng(0).integers(1, 4000, (3, 16, 16)).astype(np.uint16)
GIVEN = {"registration": "off", "fov": "full"}


@pytest.fixture
def scan(tmp_path):
    return export_cube(tmp_path / "scan.hdr", CUBE, NM, "envi")


@pytest.fixture
def run(capsys, monkeypatch):
    """The command: exit code, output and errors."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["synthgen", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--stride 8", "'stride' needs patches"),
        ("--size 8 --stride 8", "'stride' needs patches"),
        ("--min-fov 0.7", "'min_fov' needs patches"),
        ("--white-reflectance 0.5", "'white_reflectance' needs a white reference"),
        ("--fwhm 20", "'fwhm' needs target bands"),
        ("--registration off --max-shift 5", "'max_shift' needs registration"),
        ("--fov full --min-field 0.3", "'min_field' needs a field of view"),
        ("--patient-pattern (s) --patient-table t.csv", "patient_table and patient_pattern"),
        ("--patient-table t.csv --each-file-a-patient", "patient_table and each_file_a_patient"),
        ("--axes banana", "'axes' names no order of axes; found BANANA"),
        ("--axes hh", "'axes' names no order"),
        ("--source-wavelengths 0.45:0.55:0.05", "not plausible in nm; found 0.45 to 0.55"),
        ("--source-wavelengths 0.45:0.55:0.05um --wavelength-unit nm", "given twice; found um and nm"),
        ("--wavelength-unit furlong", "--wavelength-unit names no unit; found 'furlong'"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, scan, run, words, message):
    (tmp_path / "t.csv").write_text("file,patient\nscan.hdr,P\n")
    words = [str(tmp_path / w) if w == "t.csv" else w for w in words.split()]
    code, _, errors = run("ingest", scan, tmp_path / "o.h5", *words)
    assert code == 2 and message in errors and len(errors.splitlines()) == 1
    assert not list(tmp_path.glob("o.h5*"))


def test_the_same_options_with_what_they_need_are_taken(tmp_path, scan):
    white = export_cube(tmp_path / "white.hdr", np.full_like(CUBE, 4000), NM, "envi")
    given = {"white": white, "white_reflectance": 0.5, "each_file_a_patient": True, **GIVEN}
    patches = {"size": 8, "patches": True, "stride": 4, "min_fov": 0.7}
    assert ingest([scan], tmp_path / "o.h5", axes="chw", **patches, **given).kept == 9


def test_axes_that_an_envi_header_overrules_are_reported(tmp_path, scan):
    given = {"each_file_a_patient": True, "scale": 4095, **GIVEN}
    message = "axes HWC were given and not used: the header says bsq"
    assert message in ingest([scan], tmp_path / "o.h5", axes="hwc", **given).notes
    assert message not in ingest([scan], tmp_path / "o.h5", axes="chw", **given).notes


@pytest.mark.parametrize("words", ["--axes banana", "--source-wavelengths 0.45:0.55:0.05"])
def test_view_refuses_what_ingest_refuses(tmp_path, scan, run, words):
    code, _, errors = run("view", scan, "--out", tmp_path / "v.png", *words.split())
    assert code == 2 and len(errors.splitlines()) == 1 and not (tmp_path / "v.png").exists()


def test_a_view_is_a_png_by_name_and_by_content(tmp_path, scan, run):
    for name in ("v.jpg", "v"):
        code, _, errors = run("view", scan, "--out", tmp_path / name)
        assert code == 2 and ".png" in errors and not (tmp_path / name).exists()
    assert run("view", scan, "--out", tmp_path / "v.PNG")[0] == 0
    assert Image.open(tmp_path / "v.PNG").format == "PNG"


@pytest.mark.parametrize("text", ["[/red]", "[bold]P[0-9]+[/]", "a[1].npy", "[a-z]"])
def test_brackets_are_printed_as_they_are(capsys, monkeypatch, text):
    monkeypatch.setenv("COLUMNS", "300")
    refused = (Refusal(path=f"/scans/{text}", reason=f"file name does not fit; expected {text}"),)
    about = {"out": "o", "kept": 1, "patients": 1, "height": 1, "width": 1, "wavelengths_nm": (450.0,), "sources": ()}
    print_table(IngestReport(refused=refused, **about))
    shown = capsys.readouterr().out
    assert f": file name does not fit; expected {text} " in shown


def test_brackets_in_a_name_do_not_end_an_ingest_on_a_terminal(tmp_path, scan, capsys, monkeypatch):
    monkeypatch.delenv(progress.QUIET, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(Console, "is_terminal", True)
    out = tmp_path / "eyes[bold].h5"
    ingest([scan], out, each_file_a_patient=True, scale=4095, **GIVEN)
    assert len(Cohort.open(out).patients) == 1 and "eyes[bold].h5" in capsys.readouterr().err
