"""Runs that hold code of the user's own: they load where it is allowed, and nothing is imported where it is not."""

import os
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from support import call

import scorefield as sf
from scorefield.planning.facts import info_facts
from scorefield.runs.build import build_objective, read_run
from scorefield.runtime.errors import InputError
from scorefield.runtime.own_code import allowed_modules, allowing, find_class
from scorefield.runtime.parsing import build
from scorefield.runtime.registry import NETS, PROCESSES

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
HERE = __name__
DATA = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
OPTIONS: dict[str, Any] = {
    "steps": 2,
    "batch_size": 8,
    "precision": "fp32",
    "device": "cpu",
    "checkpoint_every": 2,
}


@dataclass(frozen=True)
class Straight(sf.process.GaussianProcess):
    """x_t = (1 − t) x_0 + t^bend ε."""

    bend: float = 1.0
    T = 1.0

    def level(self, t):
        time = torch.as_tensor(t, dtype=torch.float64)
        return sf.Level(1 - time, time**self.bend)


class Net(torch.nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.config = {"width": width}
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(3, width), torch.nn.SiLU(), torch.nn.Linear(width, 2)
        )

    def forward(self, x, c, y=None):
        return self.layers(torch.cat([x, c[:, None] / 1000], dim=1))


class Reconstruct(sf.objectives.Objective):
    model: sf.Denoiser
    times: sf.objectives.UniformTimes

    def __init__(self, model, power=2.0):
        super().__init__()
        self.model, self.power, self.times = model, power, sf.objectives.UniformTimes()

    def forward(self, x0, y, noise, **arrays):
        t, _ = self.times.draw(self.model.process, len(x0), noise)
        x_t = self.model.process.sample(x0, t, noise.normal_like(x0))
        return sf.objectives.Loss(((self.model(x_t, t).x0 - x0).abs() ** self.power).mean(dim=1), t, {})


@dataclass(frozen=True)
class Half(sf.samplers.Sampler):
    """Deterministic DDIM with a part of ε̂."""

    share: float = 0.5
    guidance = "eps"

    def init(self, model, x):
        return None

    def step(self, model, x_t, t, s, state, noise):
        pred = model(x_t, t).guided(t)
        alpha, sigma = model.process.level(s)
        return (alpha * pred.x0 + self.share * sigma * pred.eps).to(x_t), pred.x0, None


def denoiser(net=None, process=None):
    return sf.Denoiser(net or Net(), process or Straight(0.9), "v", noise_input="scaled")


def trained(run, objective=None, **options):
    objective = objective or Reconstruct(denoiser(), power=1.5)
    list(sf.train(objective, DATA, run=run, **{**OPTIONS, **options}))
    return objective


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("own") / "run"
    trained(run, describe={"sampling": {"sampler": Half(0.25), "grid": "uniform", "steps": 4, "clip": False}})
    return run


def test_a_run_names_what_it_is_made_of(run):
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["process"] == {"kind": f"{HERE}:Straight", "bend": 0.9}
    assert config["net"] == {"kind": f"{HERE}:Net", "width": 8}
    assert config["objective"] == {"kind": f"{HERE}:Reconstruct", "power": 1.5}
    assert config["sampling"]["sampler"] == {"kind": f"{HERE}:Half", "share": 0.25}


def test_it_loads_where_its_code_is_allowed(run):
    model = sf.load(run, kind=sf.Denoiser, allow=[HERE])
    assert model.process == Straight(0.9)
    assert sf.load(run, allow=[HERE.partition(".")[0]]).process == Straight(0.9)  # the package that holds it
    passed = sf.load(run, Net(), process=Straight(0.9))
    assert torch.equal(passed(torch.ones(1, 2), 0.5).x0, model(torch.ones(1, 2), 0.5).x0)
    assert build_objective(read_run(run, [HERE])[0], model).config == {
        "kind": f"{HERE}:Reconstruct",
        "power": 1.5,
    }


def test_it_samples_with_the_sampler_of_its_own(run):
    found = sf.Run(run, allow=[HERE])
    points = found.sample(n=5, seed=1, device="cpu").samples
    noise = sf.NoiseSource(1, samples=range(64))
    model = sf.load(run, allow=[HERE])
    expected = sf.sample(model, Half(0.25), sf.grids.uniform(model.process, 4), n=64, noise=noise)[:5]
    torch.testing.assert_close(torch.as_tensor(points), expected)
    other = found.sample(n=5, seed=1, device="cpu", sampler=Half(1.0)).samples
    ddim = found.sample(n=5, seed=1, device="cpu", sampler="ddim").samples
    torch.testing.assert_close(torch.as_tensor(other), torch.as_tensor(ddim), rtol=1e-4, atol=1e-5)


def test_a_run_resumes_with_its_objects(run, tmp_path):
    torch.manual_seed(0)
    whole = trained(tmp_path / "whole", Reconstruct(denoiser()), steps=4)
    torch.manual_seed(0)
    trained(tmp_path / "cut", Reconstruct(denoiser()), steps=2)
    again = Reconstruct(denoiser())
    list(sf.train(again, DATA, run=tmp_path / "cut", resume=True, **{**OPTIONS, "steps": 4}))
    for mine, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


CANARY = "from pathlib import Path\nPath(__file__).with_name('imported').touch()\nclass Boom:\n    pass\n"
NAMED: dict[str, Any] = {
    "process": {"process": {"kind": "canary_of_tests:Boom"}},
    "net": {"net": {"kind": "canary_of_tests:Boom"}},
    "discrete": {"process": {"kind": "interpolated", "discrete": {"kind": "canary_of_tests:Boom"}}},
    "objective": {"objective": {"kind": "canary_of_tests:Boom"}},
    "times": {"objective": {"kind": "simple", "times": {"kind": "canary_of_tests:Boom"}}},
    "sampler": {"sampling": {"sampler": {"kind": "canary_of_tests:Boom"}}},
}


@pytest.fixture
def canary(tmp_path, monkeypatch):
    (tmp_path / "canary_of_tests.py").write_text(CANARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "imported"
    sys.modules.pop("canary_of_tests", None)


def naming(folder, what):
    """A run of the first version whose description names code of a file."""
    import shutil

    shutil.copytree(Path(__file__).parent.parent / "old_runs" / "digits", folder)
    config = folder / "config.toml"
    tables = tomllib.loads(config.read_text())
    config.write_text(tomli_w.dumps({**tables, **NAMED[what]}))
    return folder


@pytest.mark.parametrize("what", NAMED)
def test_a_file_never_has_code_imported_by_itself(capsys, tmp_path, canary, what):
    run = naming(tmp_path / "run", what)
    trains = ("train", "digits", "--run", run, "--resume", "--steps", 6)
    commands: dict[str, Any] = {
        "objective": [trains],
        "times": [trains],
        "sampler": [("sample", run, "-n", 2, "--out", tmp_path / "x.npz")],
    }
    loads = [
        ("sample", run, "-n", 2),
        ("info", run),
        ("plan", run, "--flops", 1e9),
        ("evaluate", run),
        trains,
    ]
    for command in commands.get(what, loads):
        status, _, err = call(capsys, *command)
        assert status == 1
        assert "imported only with your permission" in err
        assert "--allow canary_of_tests" in err
        assert not canary.exists()
    if what in ("process", "net", "discrete"):
        with pytest.raises(sf.InputError, match="with your permission"):
            sf.load(run, allow=["another", "canary"])
        assert not canary.exists()


def test_allowed_code_must_be_of_the_kind_that_is_named(capsys, tmp_path, canary):
    run = naming(tmp_path / "run", "net")
    with pytest.raises(sf.InputError, match="canary_of_tests:Boom is no net: it must be a Module"):
        sf.load(run, allow=["canary_of_tests"])
    assert canary.exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("subprocess:Popen", "imported only with your permission"),
        (f"{HERE}:subprocess.Popen", "defines no class subprocess.Popen"),
        (f"{HERE}:Path", "defines no class Path"),
        (f"{HERE}:trained", "defines no class trained"),
        (f"{HERE}:Nothing", "defines no class Nothing"),
        (f"{HERE}.nowhere:Net", "cannot be imported"),
        (f"{HERE}:__import__('os')", "module:Name"),
        (f"{HERE}:", "module:Name"),
        (":Net", "module:Name"),
    ],
)
def test_only_classes_of_an_allowed_module_are_found(kind, message):
    with allowing([HERE]), pytest.raises(sf.InputError, match=message):
        find_class(kind, "net.kind")
    with pytest.raises(sf.InputError, match=r"module:Name|with your permission"):
        find_class(kind, "net.kind")


def test_arguments_of_own_code_are_checked():
    with allowing([HERE]):
        assert build(NETS, {"kind": f"{HERE}:Net"}, "net", {"dim": 3, "width": 9}).config == {"width": 8}
        assert build(PROCESSES, {"kind": f"{HERE}:Straight", "bend": 2.0}, "process") == Straight(2.0)
        with pytest.raises(sf.InputError, match=r"net: .*Net does not take these arguments.*'hight'"):
            build(NETS, {"kind": f"{HERE}:Net", "hight": 3}, "net")


class Foreign:
    pass


class Holds(torch.nn.Module):
    def __init__(self, thing):
        super().__init__()
        self.config = {"thing": thing}


class Unsaid(Net):
    def __init__(self, width):
        super().__init__(width)
        self.config = {}


class Wrong(Net):
    def __init__(self, width=8):
        super().__init__(width)
        self.config = {}


class Shifted(Straight):
    def __init__(self, bend):
        super().__init__(bend)
        object.__setattr__(self, "bend", 2 * bend)

    config = {}


def local():
    class Local(Net):
        pass

    return Local()


REFUSED: dict[str, Any] = {
    "a class within a function": (
        lambda: denoiser(local()),
        "rebuild net, your Local: its class is not at the top",
    ),
    "what TOML cannot hold": (lambda: denoiser(Holds(Foreign())), "its argument thing is a Foreign"),
    "a network without its arguments": (lambda: denoiser(Unsaid(8)), r"Unsaid\(\) does not make it again"),
    "other shapes": (lambda: denoiser(Wrong(16)), r"layers.0.bias has shape \(8,\) in it, not \(16,\)"),
    "layers of torch": (lambda: denoiser(torch.nn.Linear(2, 2)), r"Linear\(\) does not make it again"),
    "a function": (lambda: denoiser(lambda x, c: x), "top level"),
    "another process": (lambda: denoiser(None, Shifted(1.0)), "rebuild process, your Shifted"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_rebuilt_is_refused_before_training(tmp_path, what):
    make, message = REFUSED[what]
    with pytest.raises(sf.InputError, match=message) as found:
        trained(tmp_path / "run", sf.objectives.Simple(make()))
    assert '{"kind": "custom"}' in str(found.value)
    assert not (tmp_path / "run").exists()


def test_what_says_that_it_is_custom_is_passed(tmp_path):
    net = local()
    net.config = {"kind": "custom"}
    trained(tmp_path / "run", sf.objectives.Simple(denoiser(net)))
    with pytest.raises(sf.InputError, match=r"sf.load\(run, net=yours\)"):
        sf.load(tmp_path / "run", allow=[HERE])
    given = local()
    found = sf.Run(tmp_path / "run", net=given, process=Straight(0.9))
    points = [found.sample(n=2, device="cpu", steps=3).samples for _ in range(2)]
    assert (points[0] == points[1]).all()
    sf.load(tmp_path / "run", net=given, allow=[HERE])
    torch.testing.assert_close(given.layers[0].weight, net.layers[0].weight, rtol=0.01, atol=1e-3)


def test_checking_a_description_draws_no_random_numbers(tmp_path):
    torch.manual_seed(3)
    objective = Reconstruct(denoiser())
    after = torch.get_rng_state()
    sf.train(objective, DATA, run=tmp_path / "run", **OPTIONS).close()
    assert torch.equal(torch.get_rng_state(), after)


def script(folder, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / "own_process.py"), *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, **options
    )


def test_a_script_is_killed_and_goes_on(capsys, tmp_path, monkeypatch):
    """The 30 lines of examples/own_process.py: trained, killed, resumed, loaded, sampled; from the command too."""
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = script(tmp_path / "whole", "--steps", "120")
    cut = script(tmp_path / "cut", "--steps", "120")
    for line in cut.stdout:
        if line.startswith("70 "):
            cut.send_signal(signal.SIGKILL)
            break
    assert cut.wait() == -signal.SIGKILL
    assert whole.communicate()[0].splitlines()[-1].startswith("sampled (10, 1, 8, 8)")
    assert whole.returncode == 0
    resumed = script(tmp_path / "cut", "--steps", "120")
    lines = resumed.communicate()[0].splitlines()
    assert resumed.returncode == 0
    assert lines[0].startswith("51 ")
    weights = [
        (tmp_path / name / "runs" / "own" / "model.safetensors").read_bytes() for name in ("whole", "cut")
    ]
    assert weights[0] == weights[1]
    (tmp_path / "own_process.py").write_bytes((EXAMPLES / "own_process.py").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    options = ("-n", 4, "--steps", 10, "--device", "cpu", "--out", tmp_path / "x.npz")
    sample = ("sample", tmp_path / "cut" / "runs" / "own", *options)
    assert "--allow own_process" in call(capsys, *sample)[2]
    status, _, err = call(capsys, *sample, "--allow", "own_process")
    assert status == 0, err


class OwnClassify(sf.objectives.Classify):
    pass


def test_a_run_keeps_the_kind_of_its_model(tmp_path):
    """Whose objective is code that may not be imported: it would be taken for the other kind of its process."""
    digits = sf.data.digits()
    process, net = sf.process.cosine(10), sf.nets.MLP(64, hidden=8, layers=1, out_dim=10)
    classifier = sf.NoisyClassifier(net, process, data=digits.spec)
    list(sf.train(OwnClassify(classifier), digits, run=tmp_path / "run", **OPTIONS))
    config = tmp_path / "run" / "config.toml"
    tables = tomllib.loads(config.read_text())
    assert tables["objective"] == {"kind": f"{HERE}:OwnClassify"}
    tables["objective"]["kind"] = "module_of_another_machine:OwnClassify"
    config.write_text(tomli_w.dumps(tables))
    assert isinstance(sf.load(tmp_path / "run"), sf.NoisyClassifier)
    assert sf.Run(tmp_path / "run").recipe.is_classifier


def test_no_file_says_what_is_allowed(run, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    for name in ("_allowed", "allowed", "allow"):
        config.write_text(f'{name} = ["{HERE}"]\n' + (run / "config.toml").read_text())
        with pytest.raises(sf.InputError, match=f"no option {name}|imported only with your permission"):
            sf.load(tmp_path / "run")


def test_one_allowed_module_may_be_given_as_a_text():
    assert allowed_modules("my_package") == ("my_package",)
    assert allowed_modules(["one", "two.three"]) == ("one", "two.three")


@pytest.mark.parametrize("wrong", [None, 3, [3]])
def test_what_is_no_name_of_a_module_is_not_allowed(wrong):
    with pytest.raises(sf.InputError, match="allow takes names of modules"):
        sf.Run("a-run", allow=wrong)


BROKEN = {
    "bad_syntax": ("class Net(\n", "SyntaxError"),
    "bad_import": ("import no_such_module_at_all\n", "no_such_module_at_all"),
    "bad_name": ("x = undefined_name\n", "NameError"),
    "bad_exit": ("raise SystemExit(0)\n", "SystemExit"),
    "bad_init": (
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n        raise KeyError('k')\n",
        "KeyError",
    ),
    "bad_division": (
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n        1 / 0\n",
        "ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_of_the_users_module_is_one_line(name, tmp_path, monkeypatch, capsys):
    """Whatever an allowed module raises, imported or called, is an InputError that names it; its cause is kept."""
    source, said = BROKEN[name]
    (tmp_path / f"{name}.py").write_text(source)
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        f'[data]\nsource = "digits"\n[process]\nkind = "cosine"\n[net]\nkind = "{name}:Net"\n[objective]\nkind = "simple"\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=name) as error:
        info_facts(str(recipe), [name])
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is not None
    status, _, err = call(capsys, "info", recipe, "--allow", name)
    assert status == 1
    assert err.startswith("error: the recipe ")
    assert len(err.splitlines()) == 1
