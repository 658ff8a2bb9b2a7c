"""Solvers and grids by their names: what the [sampling] table of a run, and the command on a run of discrete
levels, make of them.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import call, relative_error

import scorefield as sf
import scorefield.cli
from scorefield.core.noise import NoiseSource
from scorefield.generation.sampling import Guide
from scorefield.models.guidance import ClassifierGuidance, ClipX0
from scorefield.runs.build import SamplingOptions, build_sampling

LINEAR = sf.process.from_betas(sf.process.linear_betas(1000))


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = sf.nets.MLP(2, hidden=16, layers=2, num_classes=3)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return sf.Denoiser(net, LINEAR, data=sf.DataSpec((2,), classes=tuple("abc"))).eval()


@pytest.fixture
def classifier():
    torch.manual_seed(1)
    net = sf.nets.MLP(2, hidden=16, layers=2, out_dim=3)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return sf.NoisyClassifier(net, LINEAR, data=sf.DataSpec((2,), classes=tuple("abc"))).eval()


TABLES = [
    {"kind": "dpm-solver"},
    {"kind": "dpm-solver", "stochastic": True},
    {"kind": "dpm-solver-2s"},
    {"kind": "dpm-solver-3m"},
    {"kind": "unipc", "order": 3},
    {"kind": "heun"},
    {"kind": "heun", "churn": 10.0, "churn_max": 50.0},
    {"kind": "ddim", "varsigma": [0.01] * 5 + [0.0]},
]


@pytest.mark.parametrize("table", TABLES, ids=str)
@pytest.mark.parametrize("grid", ["log_snr", "karras", "uniform"])
def test_a_table_of_levels_is_read_between_them_where_needed(model, classifier, table, grid):
    options = SamplingOptions(sampler=table, grid=grid, steps=6, guidance=2.0)
    sampling = build_sampling(options, model, Guide(classifier, "classifier", ""))
    assert not sampling.grid.is_floating_point()
    (block,) = replace(sampling, labels=[0, 1, 2]).blocks(3, seed=0)
    inner, judge = (sf.samplers.between_levels(one) for one in (model, classifier))
    guided = ClassifierGuidance(ClipX0(inner.given([0, 1, 2])), judge, [0, 1, 2], 2.0)
    x_T = LINEAR.prior((3, 2), NoiseSource(0, range(3)).at(0))
    expected = sf.sample(guided, sampling.sampler, sampling.grid, x_T=x_T, noise=NoiseSource(0, range(3)))
    assert relative_error(block.x, expected) < 1e-4


def test_what_cannot_be_read_between_levels_is_refused_at_once():
    ranked = sf.Denoiser(sf.nets.MLP(2), LINEAR, noise_input="rank", data=sf.DataSpec((2,)))
    build_sampling(SamplingOptions(sampler={"kind": "dpm-solver"}), ranked)
    with pytest.raises(sf.IncompatibleModel, match="rank"):
        build_sampling(SamplingOptions(sampler={"kind": "dpm-solver-2s"}), ranked)


EDM = ['process={kind="edm",std=0.6}', 'model.parametrization="edm"', 'model.noise_input="log_sigma"']


@pytest.fixture(scope="module")
def trained(tiny_run):
    return tiny_run("digits")


@pytest.mark.parametrize(
    ("sampler", "grid", "settings", "calls"),
    [
        ("dpm-solver", "log_snr", [], 10),
        ("dpm-solver", "karras", ["sampler.stochastic=true"], 10),
        ("dpm-solver-2s", "karras", [], 19),
        ("dpm-solver-3m", "log_snr", [], 10),
        ("unipc", "log_snr", ["sampler.order=3"], 10),
        ("heun", "log_snr", [], 15),  # one call in each of the 4 steps from above σ/α = 80
        ("heun", "karras", ["sampler.churn=5.0"], 13),
    ],
)
def test_the_command(capsys, trained, tmp_path, sampler, grid, settings, calls):
    more = [word for setting in settings for word in ("--set", setting)]
    out = tmp_path / "x.npz"
    command = [
        "sample",
        trained,
        "-n",
        4,
        "--sampler",
        sampler,
        "--grid",
        grid,
        "--steps",
        10,
        *more,
        "--json",
        "--out",
        out,
    ]
    status, printed, err = call(capsys, *command)
    assert status == 0, err
    assert json.loads(printed)["calls"] == calls
    assert np.load(out)["images"].std() > 0


def test_a_run_of_the_edm_process(capsys, tiny_run, tmp_path):
    run = tiny_run("digits", *EDM)
    assert sf.load(run).process.config == {
        "kind": "edm",
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "rho": 7.0,
        "mean": 0.0,
        "std": 0.6,
    }
    for options in (["--grid", "uniform"], ["--grid", "log_snr", "--set", "sampler.churn=2.0"]):
        command = [
            "sample",
            run,
            "-n",
            4,
            "--sampler",
            "heun",
            "--steps",
            5,
            *options,
            "--json",
            "--out",
            tmp_path / "x.npz",
        ]
        status, printed, err = call(capsys, *command)
        assert status == 0, err
        assert json.loads(printed)["calls"] == 9
