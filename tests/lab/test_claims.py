"""The paper's statements: what stands holds in every case, what was corrected has a counterexample."""

import json

import numpy as np
import pytest

from isthmus.cli import main
from isthmus.errors import InvalidInput
from isthmus.lab.claims import CLAIMS, Claim, Trial, check


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim.place for claim in CLAIMS])
def test_what_the_table_says_holds(claim: Claim) -> None:
    verdict = check(claim, cases=5, seed=11)
    if claim.corrected:
        assert not verdict.printed_holds
        assert verdict.counterexample
        assert verdict.corrected_holds
    else:
        assert verdict.printed_holds, verdict.counterexample
        assert verdict.corrected_holds is None
    assert verdict.worst <= (1 + 1e-8 if claim.kind == "bound" else 1e-8)


def test_places_are_different() -> None:
    assert len({claim.place for claim in CLAIMS}) == len(CLAIMS)


def test_a_false_statement_is_found() -> None:
    def trial(random: np.random.Generator) -> Trial:
        return Trial(float(random.uniform(0, 2)), None, "u")

    false = Claim("x", "a number is at most 1", "", "bound", trial)
    verdict = check(false, cases=30)
    assert not verdict.printed_holds
    assert verdict.counterexample.startswith("u: 1.")
    assert 1 < verdict.worst <= 2
    with pytest.raises(InvalidInput, match="`cases` must be at least 1"):
        check(false, cases=0)


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["claims", "--cases", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["place"] for row in rows] == [claim.place for claim in CLAIMS]
    main(["claims", "--cases", "1"])
    shown = capsys.readouterr().out
    assert "as printed" in shown
    assert "fails" in shown
