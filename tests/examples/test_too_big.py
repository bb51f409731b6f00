"""A network that fits nowhere, in small: its bare weights are refused, IST trains and exports it."""

import pytest
from examples.too_big import Options, main


@pytest.mark.processes
def test_what_no_worker_can_hold_is_trained_and_exported() -> None:
    table = main(Options(width=6144, limit=130, workers=4, rounds=1, strategies=("ist",)))
    what, planned, limit, outcome = (list(column.cells) for column in table.columns)
    assert what == ["bare weights", "ist"]
    assert int(planned[0]) > int(limit[0]) > int(planned[1])
    assert outcome[0] == "no: 151 MB were refused"
    assert outcome[1].startswith("trained to an accuracy of ")
    assert outcome[1].endswith("and exported (153 MB, readable)")
