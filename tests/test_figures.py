"""The figures that the README promises, measured: minutes of training, so marked slow. Run them with `make
test-slow`.
"""

import json
import subprocess
import sys

import pytest


def command(*arguments):
    result = subprocess.run(
        [sys.executable, "-m", "scorefield", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_the_demo_keeps_its_promises(tmp_path):
    command("train", "digits", "--run", tmp_path / "run")
    figures = json.loads(command("evaluate", tmp_path / "run", "--metrics", "fd", "--json"))["figures"]
    print({name: [figures[name].get(part) for part in ("value", "heldout", "ratio")] for name in figures})
    sampling = figures["frechet"]["stamp"]["sampling"]
    assert sampling["sets"] * sampling["samples"] >= 1000
    assert figures["agreement"]["value"] >= 0.97
    assert figures["frechet"]["ratio"] <= 1.1
    assert figures["nearest"]["ratio"] >= 0.8


@pytest.mark.slow
def test_digits_ncsn_under_every_sampler_and_digits_under_langevin(tmp_path):
    """A model trained for one sampler is sampled by all: far nearer to the digits than noise is (a distance
    over 100).
    """
    command("train", "digits-ncsn", "--run", tmp_path / "ncsn")
    command("train", "digits", "--run", tmp_path / "digits")
    ways = [
        ("ncsn", []),
        ("ncsn", ["--sampler", "ddim", "--grid", "full"]),
        ("ncsn", ["--sampler", "ancestral", "--grid", "full"]),
    ]
    ways += [("ncsn", ["--sampler", "heun", "--grid", "full"])]
    ways += [("digits", ["--sampler", "langevin", "--set", "levels=20", "--set", "repeats=10"])]
    for run, options in ways:
        frechet = json.loads(command("evaluate", tmp_path / run, *options, "--sets", 1, "--json"))["figures"][
            "frechet"
        ]
        print(run, options, frechet["value"], frechet["heldout"])
        assert frechet["value"] < 10 * frechet["heldout"], (run, options)
