"""The results page says what the result files say."""

from benchmarks import page
from benchmarks.common import RESULTS


def test_the_page_is_made_from_the_newest_results():
    assert (RESULTS.parent / "README.md").read_text() == page.render(), "run `python -m benchmarks.run --only page`"
