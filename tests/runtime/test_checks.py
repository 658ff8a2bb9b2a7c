"""The checks that many modules share: what passes, and what the messages say."""

import math
from pathlib import Path

import pytest
import torch

from scorefield.runtime.checks import check_finite, one_of, positive_int, unwritable
from scorefield.runtime.errors import InputError


def test_a_positive_integer_is_returned():
    assert positive_int("n", 3) == 3
    assert positive_int("n", 0, at_least=0) == 0
    assert positive_int("n", 5, at_most=5) == 5


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "3", None])
def test_what_is_no_positive_integer_is_refused(value):
    with pytest.raises(InputError, match=f"n must be a positive integer, got {value!r}"):
        positive_int("n", value)


def test_the_range_is_named():
    with pytest.raises(InputError, match="frames must be an integer of at least 2, got 1"):
        positive_int("frames", 1, at_least=2)
    with pytest.raises(InputError, match="steps must be an integer from 1 to 10, got 11"):
        positive_int("steps", 11, at_most=10)


def test_a_known_value_is_returned_and_a_near_one_suggested():
    assert one_of("kind", "ddim", ["ddim", "heun"]) == "ddim"
    assert one_of("variance", None, (None, "range")) is None
    with pytest.raises(
        InputError, match="kind must be one of ddim, heun; got 'dddim', did you mean 'ddim'\\?"
    ):
        one_of("kind", "dddim", ["ddim", "heun"])
    with pytest.raises(InputError, match="; got 3"):
        one_of("kind", 3, ["ddim", "heun"])


def test_rows_that_are_not_finite_are_counted():
    x = torch.zeros(4, 2, 3)
    check_finite(x, "images", "look")
    check_finite(x[:0], "images", "look")
    x[1, 0, 0], x[1, 1, 1], x[3, 0, 0] = math.nan, math.inf, -math.inf
    with pytest.raises(InputError, match="2 of 4 images hold NaN or infinite values: look"):
        check_finite(x, "images", "look")
    with pytest.raises(InputError, match="1 of 2 losses hold"):
        check_finite(torch.tensor([1.0, math.nan]), "losses", "look")


def test_the_reason_why_a_file_cannot_be_written_is_said():
    error = unwritable(Path("a"), OSError(28, "No space left on device"), "free the disk")
    assert str(error) == "a cannot be written (No space left on device): free the disk"
    assert str(unwritable(Path("a"), ValueError("odd"))) == "a cannot be written (odd)"
