"""The figures that the README promises, measured: minutes of training, so marked slow. Run them with `make test-slow`."""

import json
import subprocess
import sys

import pytest


def command(*arguments):
    result = subprocess.run(
        [sys.executable, "-m", "scorefield", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_the_demo_keeps_its_promises(tmp_path):
    command("train", "digits", "--run", tmp_path / "run")
    figures = json.loads(command("evaluate", tmp_path / "run", "--json"))
    print({name: figures[name] for name in ("agreement", "frechet_mean", "frechet_heldout", "frechet_ratio", "copying_ratio")})
    assert figures["sets"] * figures["count"] >= 1000
    assert figures["agreement"] >= 0.97
    assert figures["frechet_ratio"] <= 1.1
    assert figures["copying_ratio"] >= 0.8


@pytest.mark.slow
def test_digits_ncsn_under_every_sampler_and_digits_under_langevin(tmp_path):
    """A model trained for one sampler is sampled by all: far nearer to the digits than noise is (a distance over 100)."""
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
        figures = json.loads(command("evaluate", tmp_path / run, *options, "--sets", 1, "--json"))
        print(run, options, figures["frechet_mean"], figures["frechet_heldout"])
        assert figures["frechet_mean"] < 10 * figures["frechet_heldout"], (run, options)
