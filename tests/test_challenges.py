"""The two challenges that motivate noise levels, at reduced size: the claims of benchmarks/ hold, not only
their pictures.
"""

import importlib.util
from pathlib import Path

import pytest

from scorefield.runs.build import build_model, expected_data, read_recipe

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def benchmark(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sliced_score_matching_settles_only_with_noise():
    """NCSN §3.1: between the middle and the end of training the loss on a plane falls several times over;
    with N(0, 1e-4) it nears its minimum.

    The minimum with noise is near −(D − 2)/(2σ²), and the loss without noise falls far below it.
    """
    manifold, seed, steps = benchmark("manifold_hypothesis"), 1, 400
    print("seed", seed)
    losses = {sigma: manifold.losses(sigma, steps, seed) for sigma in (0.0, manifold.SIGMA)}
    moved = {sigma: manifold.movement(values) for sigma, values in losses.items()}
    last = {sigma: float(manifold.running_mean(values)[-1]) for sigma, values in losses.items()}
    minimum = -(manifold.DIMENSIONS - manifold.PLANE) / (2 * manifold.SIGMA**2)
    print("moves by", moved, "last", last, "minimum", minimum)
    assert moved[0.0] > 0.7
    assert moved[manifold.SIGMA] < 0.45
    assert 1.05 * minimum < last[manifold.SIGMA] < 0.7 * minimum
    assert last[0.0] < 5 * minimum


def test_annealing_mixes_and_plain_langevin_does_not():
    """NCSN §3.2.2: the weights of two far modes, from a uniform start; 4 standard errors of 3,000 samples are
    0.03.
    """
    mixing, seed, n = benchmark("slow_mixing"), 1, 3000
    print("seed", seed)
    plain = abs(mixing.share(mixing.plain(n, seed, updates=300, step=0.1)) - mixing.WEIGHT)
    annealed = abs(mixing.share(mixing.annealed(n, seed, repeats=50, step=0.4)) - mixing.WEIGHT)
    print(f"weight error: plain {plain:.3f}, annealed {annealed:.3f}")
    assert plain >= 0.2
    assert annealed <= 0.02


@pytest.mark.parametrize(
    ("name", "arguments"), [("slow_mixing", ["--samples", "50"]), ("manifold_hypothesis", ["--steps", "20"])]
)
def test_the_commands_write_their_figures(name, arguments, tmp_path, monkeypatch, capsys):
    target = tmp_path / "figure.png"
    monkeypatch.setattr("sys.argv", [name, "--out", str(target), *arguments])
    benchmark(name).main()
    assert target.read_bytes().startswith(b"\x89PNG")
    assert "seed" in capsys.readouterr().out


def test_the_ablation_has_a_deeper_network_of_the_size_of_its_base():
    ablation, recipe = benchmark("adm_ablation"), read_recipe("digits")

    def parameters(options):
        net = ablation.BASE | options
        model = build_model(recipe.model_copy(update={"net": net}), expected_data(recipe))
        return sum(p.numel() for p in model.parameters())

    (name,) = (name for name in ablation.VARIANTS if name.startswith("depth at the base's size"))
    assert ablation.VARIANTS[name][0]["blocks"] == 2 * ablation.BASE["blocks"]
    base, deeper = parameters({}), parameters(ablation.VARIANTS[name][0])
    assert (base, deeper) == (3_009_665, 3_067_579)
    assert parameters({"blocks": 2}) > 1.4 * base
