"""Figures and their stamps, as text and as JSON."""

import json

import pytest

from scorefield.evaluation.metric_value import MetricValue, append_line, grouped, stamp_lines
from scorefield.runtime.errors import InputError

SAMPLING = {"sampling": {"samples": 50_000, "eta": 0.5, "clip": True, "labels": None, "calls": [98, 110]}}
REFERENCE = {"reference": {"hash": "0badc0de"}}


def figure(name, stamp, **options):
    return MetricValue("fd", name, "a distance", 2.5, stamp, **options)


def test_a_stamp_is_read_line_by_line():
    assert stamp_lines({**SAMPLING, **REFERENCE}) == [
        "sampling    samples 50,000, eta 0.5, clip yes, calls 98–110",
        "reference   hash 0badc0de",
    ]


def test_long_lines_are_wrapped_under_their_group():
    lines = stamp_lines({"sampling": {f"fact{i}": i for i in range(40)}}, width=60)
    assert len(lines) > 5
    assert max(map(len, lines)) <= 60
    assert all(line.startswith(" " * 12) for line in lines[1:])
    assert " ".join(" ".join(lines).split()).removeprefix("sampling ") == ", ".join(
        f"fact{i} {i}" for i in range(40)
    )


def test_figures_are_put_under_one_stamp_where_one_contains_the_other():
    both = {**SAMPLING, **REFERENCE}
    a, b, c = figure("a", SAMPLING), figure("b", both), figure("c", {**both, "sampling": {"samples": 3}})
    assert grouped([a, b, c]) == [([a, b], both), ([c], c.stamp)]
    assert grouped([b, a]) == [([b, a], both)]


def test_json_has_what_is_known():
    one = figure("a", SAMPLING, error=0.5, error_of="over sets", parts={"sets": [2.0, 3.0]})
    assert json.loads(json.dumps(one.as_dict())) == {
        "metric": "fd",
        "value": 2.5,
        "error": 0.5,
        "error_of": "over sets",
        "sets": [2.0, 3.0],
        "stamp": SAMPLING,
    }
    assert "error_of" not in figure("a", SAMPLING, error_of="over sets").as_dict()


def test_lines_are_appended(tmp_path):
    for i in range(2):
        append_line(tmp_path / "results.jsonl", {"i": i})
    assert [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()] == [
        {"i": 0},
        {"i": 1},
    ]
    with pytest.raises(InputError, match="cannot be written"):
        append_line(tmp_path, {})
