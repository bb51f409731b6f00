"""The script behind the tables of docs/anchored.md, in small, and that the page shows what it prints."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from isthmus.lab.compare import Comparison

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "anchored.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import anchored_numbers

        yield anchored_numbers
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_the_tables_are_made(script, tmp_path):
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in script.factors(4, 2, 8)]
    assert [row[:2] for row in rows] == [["n", "5"], ["n", "20"], ["sqrt(n)", "5"], ["sqrt(n)", "20"]]
    for _, _, exact, sent, proved, there in rows:
        assert 0.0 < float(exact) < 1.0
        assert float(sent.removesuffix(" d")) > 0
        assert float(there) <= float(proved) < 1.0
    assert len(script.momentum_problems(tmp_path, small=False)) == 5
    (row,) = script.momentum({"one": Comparison(dim=4, workers=2, rows=8)})
    name, plain, fast = row.strip("| ").split(" | ")
    assert name == "one"
    assert float(fast.split()[0]) < float(plain)
    assert script.numbers_sent(0.1, 4, 5) == pytest.approx(6 * (0.5 + 0.4))
    assert script.numbers_sent(1.0, 4, 5) == np.inf


def test_the_page_shows_what_the_script_prints(script):
    """What takes no time; the rows that do are the script's, run by hand."""
    assert script.extrapolated(20) in PAGE
    best, root = re.search(r"close: ([\d.]+) against sqrt\(6\) = ([\d.]+)", PAGE).groups()
    assert script.scales(60, 6, 80) == f"best scale {best}, sqrt(n) {root}"
