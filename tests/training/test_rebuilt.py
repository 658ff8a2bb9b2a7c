"""What a run could not rebuild is refused before training; what it can, it samples in few steps by default."""

import pytest
import torch

import scorefield as sf
from scorefield.runs.build import read_run

DATA = sf.data.tensor(torch.linspace(-1, 1, 64).reshape(32, 2))


def net(**options):
    return sf.nets.MLP(2, **{"hidden": 8, "layers": 1, **options})


def changed_prior():
    process = sf.process.cosine(20)
    process.prior_std = 3.0
    return process


def changed_net():
    found = net()
    found.last = torch.nn.Linear(8, 2, bias=False)
    return found


def wrapped_net():
    found = net()
    found.first = torch.nn.Sequential(found.first)  # type: ignore[assignment]
    return found


TABLE = sf.process.DiscreteProcess(torch.tensor([0.9, 0.5]), torch.tensor([0.4, 0.8]))
STEEP = sf.process.DiscreteProcess(torch.ones(2), torch.tensor([0.4, 0.8]))


class Further(sf.Denoiser):
    pass


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: sf.Denoiser(net(), changed_prior()), "rebuild process, which was changed after it was made"),
        (lambda: sf.Denoiser(net(), TABLE), "a DiscreteProcess: no configuration file can name this class"),
        (lambda: sf.Denoiser(net(), sf.process.Interpolated(STEEP)), "no configuration file can name"),
        (
            lambda: sf.Denoiser(changed_net(), sf.process.cosine(20)),
            "rebuild net, which was changed.*last.bias",
        ),
        (lambda: sf.Denoiser(wrapped_net(), sf.process.cosine(20)), "rebuild net, which was changed.*first"),
        (lambda: sf.Denoiser(lambda x, c, y=None: x, sf.process.cosine(20)), "rebuild net, your function"),
        (
            lambda: Further(net(), sf.process.cosine(20)),
            "loaded as a Denoiser, without what your Further adds",
        ),
    ],
)
def test_what_could_not_be_loaded_is_refused_before_training(make, said, tmp_path):
    with pytest.raises(sf.InputError, match=said):
        sf.train(
            sf.objectives.Simple(make()), DATA, steps=1, batch_size=8, run=tmp_path / "run", device="cpu"
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("process", "steps"),
    [(sf.process.cosine(1000), 50), (sf.process.cosine(20), None), (sf.process.vp(), 50)],
)
def test_a_run_of_python_is_sampled_in_few_steps(process, steps, tmp_path):
    model = sf.Denoiser(net(), process, noise_input="scaled", data=DATA.spec)
    trainer = sf.train(
        sf.objectives.Simple(model), DATA, steps=1, batch_size=8, run=tmp_path / "run", device="cpu"
    )
    list(trainer)
    assert read_run(tmp_path / "run")[0].sampling.steps == steps
    run = sf.Run(tmp_path / "run")
    assert run.sampling().calls == (steps or 20)
    assert len(run.sample(n=2, device="cpu")) == 2


def test_what_the_run_says_of_sampling_stays(tmp_path):
    model = sf.Denoiser(net(), sf.process.cosine(1000), data=DATA.spec)
    trainer = sf.train(
        sf.objectives.Simple(model),
        DATA,
        steps=1,
        batch_size=8,
        run=tmp_path / "run",
        device="cpu",
        describe={"sampling": {"steps": 7}},
    )
    list(trainer)
    assert read_run(tmp_path / "run")[0].sampling.steps == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"run": 3}, "run is the path of the folder"), ({"describe": 3}, "describe takes tables by name")],
)
def test_arguments_of_training_that_are_none(arguments, said):
    model = sf.Denoiser(net(), sf.process.cosine(20))
    with pytest.raises(sf.InputError, match=said):
        sf.train(sf.objectives.Simple(model), DATA, steps=1, **arguments)


def test_a_function_is_no_objective():
    with pytest.raises(sf.InputError, match=r"objective must be an objective.*function is not"):
        sf.train(lambda x: x.sum(), DATA, steps=1)  # type: ignore[arg-type]
