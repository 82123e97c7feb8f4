"""`synthgen report`: the page of a run says how it stands, shows its curves, and its command lines are understood."""

import html
import re

import numpy as np
import pytest

from synthgen.cli.reference import check_command
from synthgen.errors import InputError
from synthgen.experiments.study.findings import ArmFound, Difference, Findings, write_findings
from synthgen.experiments.study.options import Study
from synthgen.integration.options import Pretraining
from synthgen.integration.pages.run import end_with_report, report_run
from synthgen.report.contact_sheet import contact_sheet
from synthgen.report.curve_svg import curve_svg
from synthgen.runs.files import write_json, write_text
from synthgen.runs.folder import RunFolder, record_command


@pytest.fixture
def run(tmp_path):
    """A pretraining that was stopped at step 30 of 40."""
    config = Pretraining(steps=40, out=str(tmp_path / "a run"), synthetic_ratio="1/3")
    with RunFolder(config.out, config) as folder:
        folder.begin(0)
        for step in range(10, 31, 10):
            loss = 1.0 / step if step < 30 else float("nan")
            folder.log(step, loss=loss, other=step / 7, gates="uncertified", seen=5)
    contact_sheet(folder.path / "contact_sheet.png", {"real": np.random.rand(1, 2, 16, 16)}, [500, 600])
    checks = [{"name": "copies", "status": "fail", "value": 0.5, "limit": 0.1, "n": 9, "reason": "half are copies"}]
    write_json(folder.path / "verdict.json", {"status": "fail", "checks": checks, "proposed": 9, "accepted": 4})
    write_text(folder.path / "verdict.html", "page")
    write_json(folder.path / "probe.json", {"auroc": {"mean": 0.61234567}, "note": "<script>alert(1)</script>"})
    return folder.path


def text_of(page):
    return html.unescape(page.read_text())


def lines_of(page):
    return [html.unescape(line) for line in re.findall(r"<pre>(.*?)</pre>", page.read_text())]


def test_an_interrupted_run(run):
    page = report_run(run)
    text = text_of(page)
    assert "a run: stopped" in text and "pretrain, step 30 of at most 40." in text
    assert page.read_text().count('<svg class="curve"') == 2 and "seen 5" in text
    assert "loss was not finite in 1 lines" in text and "not certified" in text
    assert "fraction of copies of training cubes" in text and "href='verdict.html'" in text
    assert "auroc.mean" in text and "0.61235" in text and "<script>" not in page.read_text()
    assert page.read_text().count("data:image/png;base64,") == 1 and not re.search("https?:", page.read_text())
    settings = re.findall(r"<th scope='row'>(\w+)</th><td>([^<]*)</td><td class='same'>([^<]*)</td>", page.read_text())
    changed = dict(
        re.findall(r"row'>(\w+)</th><td>([^<]*)<", text.split("settings at their defaults")[0].split("Settings")[1])
    )
    assert changed == {"synthetic_ratio": "1/3", "steps": "40", "out": str(run)} and len(settings) > 30
    for line in lines_of(page):
        check_command(line)
    assert any("--resume" in line and "again" not in line for line in lines_of(page))


def test_a_finished_run_and_a_folder_of_runs(run):
    write_json(run / "summary.json", {"steps": 40})
    page = report_run(run.parent)
    assert "a run: finished" in text_of(run / "report.html")
    assert "--resume" not in " ".join(lines_of(run / "report.html")).replace("--no-resume", "")
    assert "href='a run/report.html'" in text_of(page) and "finished" in text_of(page) and "1 runs." in text_of(page)


def test_nothing_to_report_on_and_no_run_fails_of_its_page(tmp_path, capsys, synthgen):
    with pytest.raises(InputError, match="nothing to report on"):
        report_run(tmp_path)
    end_with_report(tmp_path)
    assert "warning" in capsys.readouterr().err
    assert synthgen("report", tmp_path)[0] == 2


def test_curves():
    points = [(k, 10.0 ** -(k / 250)) for k in range(1, 1001)]
    drawn = curve_svg("a<b", points)
    assert "logarithmic" in drawn and "a&lt;b" in drawn and "1,000" in drawn
    path = [tuple(map(float, p.split(","))) for p in re.search(r'd="M([^"]*)"', drawn)[1].split("L")]
    assert len(path) <= 402 and path[-1][0] == max(x for x, _ in path)
    steps = np.diff([y for _, y in path])
    assert np.all(steps > 0) and np.ptp(steps[:-1]) < 0.25  # exponential decay is a straight line there
    assert "logarithmic" not in curve_svg("x", [(0, 1.0), (1, 2.0)]) and curve_svg("x", [(0, 1.0), (1, 1.0)])


def test_the_page_of_a_study(tmp_path, make_study):
    """Conclusion first, then arms and differences; it leads to the pretrainings, and its commands are understood."""
    study, found = make_study(tmp_path / "study")
    write_findings(study, found)
    page = tmp_path / "study" / "report.html"
    text = text_of(page)
    assert "study: finished" in text and found.conclusion[0] in text and found.conclusion[1] in text
    assert "mixed-0.5 - real" in text and "+0.120 [+0.050, +0.200], better" in text and "AUROC 0.700, 0.720" in text
    assert page.read_text().count("data:image/png;base64,") == 1 and "href='pretrain/real-seed0/report.html'" in text
    assert (tmp_path / "study" / "pretrain" / "real-seed0" / "report.html").exists()
    for line in lines_of(page):
        check_command(line)
    (tmp_path / "study" / "study.json").unlink()
    assert "study: stopped" in text_of(report_run(tmp_path / "study"))


@pytest.fixture
def make_study():
    def make(out):
        study = Study(data="a.h5", out=str(out), arms=("real", "mixed-0.5"), given_generator="g", given_gates="g")
        write_text(out / "study.yaml", study.to_yaml())
        record_command(out, study)
        with RunFolder(str(out / "pretrain" / "real-seed0"), Pretraining(out="x")) as inner:
            inner.begin(0)
            inner.log(1, loss=1.0)
        arm = {"what": "w", "seeds": (0, 1), "steps": 9, "seconds": 60.0, "knn_auroc": 0.6}
        found = Findings(
            study="f", n_patients=40, same_patients=False, conclusion=("It helped.", "But little."),
            arms=(ArmFound(arm="real", aurocs=(0.6, 0.58), **arm),
                  ArmFound(arm="mixed-0.5", aurocs=(0.7, 0.72), **arm)),
            differences=(Difference(first="mixed-0.5", second="real", seeds=2, difference=0.12, interval=(0.05, 0.2),
                                    conclusion="better"),),
        )  # fmt: skip
        return study, found

    return make
