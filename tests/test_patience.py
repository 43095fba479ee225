"""What tests wait with finds out what it is for."""

from __future__ import annotations

import pytest

from tests.patience import ended, eventually, grows_in_proportion


def test_what_grows_with_the_square_is_found_out_and_what_grows_in_proportion_is_not() -> None:
    grows_in_proportion(lambda length: sum(range(100 * length)), 20_000)
    with pytest.raises(AssertionError, match="four times the length"):
        grows_in_proportion(lambda length: sum(range(length * length)), 1_500)


def test_what_never_comes_is_found_out() -> None:
    with pytest.raises(AssertionError, match="never came"):
        eventually(lambda: False, patience_s=0.01)


def test_what_work_comes_to_or_raises_is_told() -> None:
    assert ended(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        ended(lambda: 1 // 0)
