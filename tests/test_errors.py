"""The two checks and the one root."""

import numpy as np
import pytest

from isthmus import errors


def test_everything_raised_on_purpose_has_one_root() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 6
    assert all(issubclass(kind, errors.IsthmusError) for kind in kinds)


@pytest.mark.parametrize(("value", "expected"), [(3, 3), (np.int64(4), 4)])
def test_integers_pass(value: object, expected: int) -> None:
    result = errors.check_integer("n", value, at_least=3, at_most=4)
    assert result == expected
    assert type(result) is int


@pytest.mark.parametrize("value", [2, 5, 3.0, "3", None, True, np.float64(3)])
def test_what_is_no_integer_in_range_is_refused(value: object) -> None:
    with pytest.raises(errors.InvalidInput, match="`n` must be"):
        errors.check_integer("n", value, at_least=3, at_most=4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None, True, 1j, 0.0, 1.0])
def test_what_is_no_number_in_an_open_interval_is_refused(value: object) -> None:
    with pytest.raises(errors.InvalidInput, match="`p` must be"):
        errors.check_number("p", value, above=0.0, below=1.0)


def test_closed_ends_are_inside() -> None:
    assert errors.check_number("p", 0, at_least=0.0, at_most=1.0) == 0.0
    assert errors.check_number("p", np.float32(1), at_least=0.0, at_most=1.0) == 1.0


def test_a_choice_suggests_the_nearest() -> None:
    assert errors.check_choice("data", "digits", ["digits", "diabetes"]) == "digits"
    with pytest.raises(errors.InvalidInput, match=r"one of digits, diabetes, got 'digts'; did you mean 'digits'\?"):
        errors.check_choice("data", "digts", ["digits", "diabetes"])
    with pytest.raises(errors.InvalidInput) as caught:
        errors.check_choice("data", "zzz", ["digits"])
    assert "did you mean" not in str(caught.value)
