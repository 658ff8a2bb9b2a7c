"""The checks that many modules share: what passes, and what the messages say."""

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.runtime.checks import (
    brief,
    check_finite,
    flag,
    instance_of,
    number,
    numbers,
    one_of,
    positive_int,
    unwritable,
)
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


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), np.int64(1), torch.tensor(0.5), Fraction(1, 2)])
def test_a_number_is_returned_as_a_float(value):
    found = number("eta", value, at_least=0, at_most=1)
    assert type(found) is float
    assert found == float(value)


NO_NUMBERS = [
    math.nan,
    math.inf,
    -math.inf,
    "1",
    None,
    True,
    1j,
    [1],
    object(),
    10**400,
    np.ones(2),
    torch.ones(2),
    torch.tensor(math.nan),
]


# Ids without addresses in memory, which differ between the processes of one session of pytest.
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: re.sub(" at 0x.*", "", str(value)))
def test_what_is_no_number_is_refused_in_one_line(value):
    with pytest.raises(InputError, match=r"^eta must be a finite number, got [^\n]{1,120}$"):
        number("eta", value)


def test_the_range_of_a_number_is_named_and_its_ends_hold():
    for value in (0, 1):
        assert number("eta", value, at_least=0, at_most=1) == value
    with pytest.raises(
        InputError, match=r"eta must be a finite number of at least 0 and of at most 1, got 1\.5"
    ):
        number("eta", 1.5, at_least=0, at_most=1)
    for value in (0, 1):
        with pytest.raises(InputError, match=f"above 0 and below 1, got {value}"):
            number("share", value, above=0, below=1)


def test_tables_of_numbers():
    assert numbers("betas", [0.1, 1], 1).tolist() == [0.1, 1.0]
    assert numbers("betas", np.array([0.5], np.float32), 1).dtype == torch.float64
    assert numbers("scale", 3).shape == ()
    for wrong in (["a"], [1, None], [[1], [1, 2]], [math.nan], [True], [1j], object(), "12", [10**400]):
        with pytest.raises(InputError, match="betas must be a one-dimensional list of finite numbers, got"):
            numbers("betas", wrong, 1)
    for shape in ((), (0,), (2, 2)):
        with pytest.raises(InputError, match=re.escape(f"got shape {shape}")):
            numbers("betas", torch.ones(shape), 1)


def test_a_list_too_long_to_be_read_number_by_number_is_refused_at_once():
    with pytest.raises(
        InputError,
        match=r"betas: a list may have 10,000,000 entries, got range\(0, 1000000000\): give a tensor",
    ):
        numbers("betas", range(10**9), 1)


def test_flags_and_kinds():
    assert flag("energy", False) is False
    for wrong in (0, 1, None, "yes"):
        with pytest.raises(InputError, match="energy must be True or False, got"):
            flag("energy", wrong)
    assert instance_of("x", "a", str, "a word") == "a"
    with pytest.raises(InputError, match="x must be a word, got 3"):
        instance_of("x", 3, str, "a word")


def test_a_message_shows_a_value_in_one_short_line():
    class Broken:
        def __repr__(self):
            raise RuntimeError("no")

    assert brief(3) == "3"
    assert brief("x" * 1000) == "a str"
    assert brief("a\nb") == "'a\\nb'"
    assert brief(10**5000) == "a int"
    assert brief(Broken()) == "a Broken"
    assert brief(torch.ones(100, 2)) == "a Tensor"


def test_no_word_is_compared_with_what_is_none():
    for value in (np.ones(3), torch.ones(2), [], {}, 10**5000):
        with pytest.raises(InputError, match="kind must be one of a, b; got"):
            one_of("kind", value, ["a", "b"])
