"""Recipes and runs <-> TOML: whatever describes itself is rebuilt from its description."""

import tomllib

import pytest
import tomli_w
import torch

import scorefield as sf
from scorefield.runs import build
from scorefield.runtime import registry

PROCESSES = {
    "linear": lambda: sf.process.linear(1000),
    "cosine": lambda: sf.process.cosine(300, s=0.01),
    "betas": lambda: sf.process.from_betas([0.5, 0.9, 0.99]),
    "geometric": lambda: sf.process.geometric(7.3, 0.013, 12, mean=0.2, std=0.3),
    "sigmas": lambda: sf.process.from_sigmas([0.1, 0.5, 0.6]),
    "flow": lambda: sf.process.flow(t_min=0.01),
    "vp": lambda: sf.process.vp(),
    "sub-vp": lambda: sf.process.sub_vp(0.2, 15.0),
    "ve": lambda: sf.process.ve(0.01, 50.0),
    "zero-terminal-snr": lambda: sf.process.zero_terminal_snr(sf.process.linear(50, 0.01, 0.3)),
    "interpolated": lambda: sf.process.Interpolated(sf.process.cosine(50)),
}


@pytest.mark.parametrize("kind", PROCESSES)
def test_processes_are_rebuilt_exactly(kind):
    process = PROCESSES[kind]()
    described = tomllib.loads(tomli_w.dumps({"process": dict(process.config)}))["process"]
    rebuilt = build.build(registry.PROCESSES, described, "process")
    assert described["kind"] == kind
    t = torch.linspace(0, 1, 11, dtype=torch.float64) * process.T
    t = t.round() if isinstance(process, sf.process.DiscreteProcess) else t
    for mine, theirs in zip(process.level(t), rebuilt.level(t), strict=True):
        assert torch.equal(mine, theirs)
    assert (rebuilt.T, rebuilt.prior_mean, rebuilt.prior_std) == (
        process.T,
        process.prior_mean,
        process.prior_std,
    )


@pytest.mark.parametrize("name", build.recipe_names())
def test_recipes_survive_their_own_file(name):
    recipe = build.read_recipe(name)
    values = recipe.model_dump(exclude_none=True)
    assert build.parse(build.Recipe, tomllib.loads(tomli_w.dumps(values))) == recipe


def test_overrides_are_typed_and_checked():
    recipe = build.read_recipe("digits")
    changed = build.with_overrides(
        recipe,
        [
            "training.lr=3e-4",
            "net.channel_mult=[1, 2, 4]",
            "data.source=some folder",
            "sampling.sampler.variance=upper",
        ],
    )
    assert changed.training.lr == 3e-4
    assert changed.net["channel_mult"] == [1, 2, 4]
    assert changed.data.source == "some folder"
    assert changed.sampling.sampler == {"kind": "ancestral", "variance": "upper"}
    assert build.read_recipe("digits") == recipe
    for setting, message in [
        ("training.lrr=1", "did you mean 'lr'"),
        ("net", "a.b=c"),
        ("x.y=1", "no table 'x'"),
        ("training.steps=2.5", "steps"),
    ]:
        with pytest.raises(sf.InputError, match=message):
            build.with_overrides(recipe, [setting])


def test_grids_by_name():
    process = sf.process.from_betas(sf.process.cosine_betas(100))

    def grid(**options):
        return build.build_grid(build.SamplingOptions(**options), process).tolist()

    assert grid(grid="uniform", steps=4) == [100, 75, 50, 25, 0]
    assert len(grid(grid="full")) == len(grid(grid="uniform")) == 101
    assert grid(grid="2,1") == sf.grids.sections(process, [2, 1]).tolist()
    assert grid(grid="staircase", repeats=2, levels=2) == [100, 100, 50, 50, 0]
    for name in ("quadratic", "log_snr", "karras"):  # all levels in a row are none of these
        with pytest.raises(sf.InputError, match=f"'{name}' needs a number of steps"):
            grid(grid=name)


def test_a_recipe_of_the_users_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[process]\nkind = "cosine"\nT = 10\n[net]\nkind = "mlp"\n')
    recipe = build.read_recipe(str(path))
    assert recipe.name == "mine"
    model = build.build_model(recipe, sf.DataSpec((2,)))
    assert model(torch.zeros(3, 2), 5).x0.shape == (3, 2)
    path.write_text("[process\n")
    with pytest.raises(sf.InputError, match="not valid TOML"):
        build.read_recipe(str(path))
    with pytest.raises(sf.InputError, match="no such file"):
        build.read_recipe(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": {"kind": "cosin"}}, "did you mean 'cosine'"),
        ({"net": {"kind": "mlp", "hidden": "wide"}}, "net.hidden"),
        ({"net": {"kind": "mlp", "hiden": 3}}, "did you mean 'hidden'"),
        ({"process": {"kind": "geometric"}}, "process.sigma_max is missing"),
        ({"model": {"conditional": True}}, "no labels"),
        ({"objective": {"kind": "simple", "weighting": "w"}}, "weighting must be one of"),
    ],
)
def test_bad_recipes_teach(change, message):
    values = {"process": {"kind": "cosine", "T": 10}, "net": {"kind": "mlp"}, **change}
    recipe = build.parse(build.Recipe, values)
    with pytest.raises(sf.InputError, match=message):
        build.build_objective(recipe, build.build_model(recipe, sf.DataSpec((2,))))


def test_a_score_without_levels_takes_no_unknown_grid():
    score = sf.ScoreModel(lambda x: -x, data=sf.DataSpec((2,)))
    assert (
        build.build_sampling(build.SamplingOptions(sampler={"kind": "langevin", "step": 0.1}), score).steps
        == 1000
    )
    with pytest.raises(sf.InputError, match="did you mean 'uniform'"):
        build.build_sampling(
            build.SamplingOptions(grid="uniforn", sampler={"kind": "langevin", "step": 0.1}), score
        )
