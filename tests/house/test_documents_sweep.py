"""docs/pareto64 and docs/ablations64 are what `synthgen pareto` makes of their records."""

from pathlib import Path

import pytest

from synthgen.experiments.sweep.pareto import as_csv, pareto, table
from synthgen.experiments.sweep.records import read_records

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="not a source tree")


@pytest.mark.slow
@pytest.mark.parametrize(("records", "made"), [("sweep64", "pareto64"), ("ablations64", "ablations64")])
def test_table_and_findings_of_the_documentation_are_made_of_the_records(tmp_path, records, made):
    folder, kept = ROOT / "benchmarks" / "results" / records, ROOT / "docs" / made
    pareto(folder, tmp_path)
    for name in ("findings.md", "table.csv"):
        assert (kept / name).read_text() == (tmp_path / name).read_text(), f"{name}: run `synthgen pareto` again"
    assert (kept / "table.csv").read_text() == as_csv(table(read_records(folder)))
    assert {p.name for p in kept.iterdir()} == {p.name for p in tmp_path.iterdir()}
